"""Where to publish: from what people write to a target."""

from __future__ import annotations

import os
from pathlib import Path

from lazyfs.errors import ConfigError
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.s3_location import SCHEMES, parse_s3_location
from lazyfs.publish.s3_target import S3Target
from lazyfs.publish.target import UploadTarget


def open_target(text: str) -> UploadTarget:
    """The target that a folder's path or an S3 location names; nothing is looked at yet.

    Raises:
        ConfigError: it cannot be used.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        return DirectoryTarget(Path(text).absolute())
    if scheme not in SCHEMES:
        raise ConfigError(
            f"cannot publish to {scheme}://",
            hint="give a folder, s3://BUCKET/PREFIX or s3+http://HOST:PORT/BUCKET/PREFIX",
        )
    return S3Target(parse_s3_location(text, os.environ))
