"""What a user may name a repository by: its name, a URL, or a folder on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from lazyfs.config.files import check_fqrn
from lazyfs.errors import ConfigError

_MANIFEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A repository's name, and its server if the user named one."""

    fqrn: str
    server: str | None = None


def parse_source(source: str, default_domain: str = "") -> Source:
    """The repository that ``source`` stands for.

    Args:
        source: A name, ``http(s)://…/<fqrn>``, or a path with a slash in it.
        default_domain: Added to names without a dot.

    Raises:
        ConfigError: it is none of these.
    """
    if source.startswith(("http://", "https://")):
        url = source.rstrip("/")
        if not _split(url).hostname:
            raise ConfigError(f"not a URL: {source!r}")
        return Source(check_fqrn(url.rpartition("/")[2]), url)
    if source.startswith("file://"):
        source = unquote(_split(source).path)
    if "/" in source or source in (".", ".."):
        folder = Path(source).absolute()
        return Source(_name_in_folder(folder), "file://" + quote(str(folder)))
    if "." not in source and default_domain:
        source = f"{source}.{default_domain}"
    return Source(check_fqrn(source))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as exc:
        raise ConfigError(f"not a URL: {url!r}: {exc}") from None


def _name_in_folder(folder: Path) -> str:
    """The name that the folder's manifest states; it is verified when the repository is opened."""
    path = folder / ".cvmfspublished"
    try:
        with path.open("rb") as file:
            head = file.read(_MANIFEST_BYTES)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"no repository in this folder: {getattr(exc, 'strerror', exc)}",
            path=str(path),
            hint="give the folder that holds .cvmfspublished, a URL, or a configured name",
        ) from exc
    for line in head.split(b"\n--\n")[0].split(b"\n"):
        if line.startswith(b"N"):
            return check_fqrn(line[1:].decode("utf-8", "replace"))
    raise ConfigError("the manifest states no name", path=str(path))
