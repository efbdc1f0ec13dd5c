"""`FirstFound`: credentials for an object store, from wherever there are some."""

from __future__ import annotations

import configparser
import threading
from collections.abc import Mapping

from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    EnvMinioProvider,
    IamAwsProvider,
    Provider,
)

from lazyfs.errors import NetworkError, PublishError
from lazyfs.net.patient_pool import Patience, PatientPool
from lazyfs.publish.s3_errors import printable
from lazyfs.publish.s3_location import S3Location

_METADATA_SERVICE = Patience(attempts=1, connect=2.0, answer=5.0)
"""Most machines have none."""


class FirstFound(Provider):
    """Credentials, once they are found. Safe to use from many threads.

    They come from the file or profile that the location names, and from nowhere else; if it names
    none, from the environment, from ``~/.aws/credentials``, or from the machine's role.

    Args:
        location: May name a file.
        environ: May say that there is no metadata service.
    """

    def __init__(self, location: S3Location, environ: Mapping[str, str]) -> None:
        self._provider = _provider(location, environ)
        self._lock = threading.Lock()

    def retrieve(self) -> Credentials:
        """The credentials.

        Raises:
            PublishError: there are none.
        """
        try:
            with self._lock:
                return self._provider.retrieve()
        except (ValueError, KeyError, configparser.Error, OSError, NetworkError) as exc:
            raise PublishError(
                f"no credentials for the object store: {printable(str(exc))}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them into"
                " ~/.aws/credentials or the file that '?credentials=FILE' names",
            ) from exc


def _provider(location: S3Location, environ: Mapping[str, str]) -> Provider:
    file = str(location.credentials) if location.credentials is not None else None
    from_file = AWSConfigProvider(file, location.profile)
    if file is not None or location.profile is not None:
        return from_file
    found: list[Provider] = [EnvAWSProvider(), EnvMinioProvider(), from_file]
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        found.append(IamAwsProvider(http_client=PatientPool(_METADATA_SERVICE)))
    return ChainedProvider(found)
