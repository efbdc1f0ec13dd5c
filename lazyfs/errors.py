"""Every error that lazyfs raises on purpose, in one hierarchy.

::

    LazyfsError                     1   EIO
    ├── FormatError                10   EIO     bytes that do not parse, or contradict themselves
    │   └── CodecError             11   EIO     a damaged, over-long or cut compressed stream
    ├── VerificationError          20   EIO     bytes that parse but must not be trusted
    │   ├── HashMismatch           21   EIO
    │   ├── SignatureError         22   EIO
    │   ├── WhitelistExpired       23   EIO
    │   ├── CertificateRefused     24   EIO     not on the whitelist, or blacklisted
    │   └── RollbackRefused        25   EIO     older than what this cache has already seen
    ├── NotFound                   30   ENOENT
    │   ├── PathNotFound           31   ENOENT
    │   ├── RevisionNotFound       32   ENOENT  no such tag, date or root hash
    │   └── ObjectMissing          33   EIO     named by a catalog, held by no server
    ├── PathError                  35   EINVAL  a path of the wrong type for what was asked
    │   ├── NotADirectory          36   ENOTDIR
    │   └── IsADirectory           37   EISDIR
    ├── WriteError                 38   EIO     a local file cannot be written
    ├── NetworkError               40   EIO
    │   ├── Timeout                41   EIO
    │   └── AllMirrorsFailed       42   EIO
    ├── CacheError                 50   EIO
    │   ├── QuotaExceeded          51   ENOSPC
    │   ├── CacheFull              52   ENOSPC  the file system below the cache is full
    │   └── NotCached              53   EIO     it would have to be fetched, which was not allowed
    ├── ConfigError                60   EINVAL
    ├── PublishError               70   EIO
    ├── MountError                 80   EIO
    │   └── NotMounted             81   ENOENT
    └── ControlError               85   EIO     the control socket did not answer as it should

The first number is the exit code of the command line, the second the errno a mount answers with.
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar


class LazyfsError(Exception):
    """Base of all errors raised by lazyfs.

    Args:
        message: What happened, in one sentence without a full stop.
        object: The object concerned, as text (a digest, ``manifest``, ``whitelist``).
        path: The path inside the repository, or a local file.
        url: Where the bytes came from.
        hint: What the user can do next.
    """

    exit_code: ClassVar[int] = 1
    errno: ClassVar[int] = _errno.EIO

    def __init__(
        self,
        message: str,
        *,
        object: str | None = None,
        path: bytes | str | None = None,
        url: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.object = object
        self.path = path.decode(errors="backslashreplace") if isinstance(path, bytes) else path
        self.url = url
        self.hint = hint

    def __str__(self) -> str:
        fields = (("object", self.object), ("path", self.path), ("url", self.url))
        named = [f"{name} {value}" for name, value in fields if value]
        text = self.message + (f" ({', '.join(named)})" if named else "")
        return f"{text}: {self.hint}" if self.hint else text


class FormatError(LazyfsError):
    """Bytes do not parse, or contradict themselves."""

    exit_code = 10


class CodecError(FormatError):
    """A compressed stream is damaged, cut, or longer than declared."""

    exit_code = 11


class VerificationError(LazyfsError):
    """Bytes parse, but must not be trusted."""

    exit_code = 20


class HashMismatch(VerificationError):
    """An object's bytes do not have the digest they are named by."""

    exit_code = 21


class SignatureError(VerificationError):
    """A signature does not fit any of the keys that are trusted."""

    exit_code = 22


class WhitelistExpired(VerificationError):
    """The whitelist's validity has ended."""

    exit_code = 23


class CertificateRefused(VerificationError):
    """The certificate is not on the whitelist, or is blacklisted."""

    exit_code = 24


class RollbackRefused(VerificationError):
    """A server offers an older revision than this cache has already seen."""

    exit_code = 25


class NotFound(LazyfsError):
    """Something that was asked for does not exist."""

    exit_code = 30
    errno = _errno.ENOENT


class PathNotFound(NotFound):
    """No such path in this revision."""

    exit_code = 31


class RevisionNotFound(NotFound):
    """No such tag, date or root hash."""

    exit_code = 32


class ObjectMissing(NotFound):
    """A catalog names the object, but no server has it."""

    exit_code = 33
    errno = _errno.EIO


class PathError(LazyfsError):
    """A path has the wrong type for what was asked."""

    exit_code = 35
    errno = _errno.EINVAL


class NotADirectory(PathError):
    """A directory was asked for, but the path is something else."""

    exit_code = 36
    errno = _errno.ENOTDIR


class IsADirectory(PathError):
    """A file was asked for, but the path is a directory."""

    exit_code = 37
    errno = _errno.EISDIR


class WriteError(LazyfsError):
    """A local file or directory cannot be written."""

    exit_code = 38


class NetworkError(LazyfsError):
    """A transfer failed."""

    exit_code = 40


class Timeout(NetworkError):
    """A transfer did not end within its bound."""

    exit_code = 41


class AllMirrorsFailed(NetworkError):
    """Every server was tried through every proxy, and each failed."""

    exit_code = 42


class CacheError(LazyfsError):
    """The local cache cannot do what was asked."""

    exit_code = 50


class QuotaExceeded(CacheError):
    """The cache may not grow, and nothing in it may be evicted."""

    exit_code = 51
    errno = _errno.ENOSPC


class CacheFull(CacheError):
    """The file system below the cache is full."""

    exit_code = 52
    errno = _errno.ENOSPC


class NotCached(CacheError):
    """The answer would have to be fetched, and the caller allowed no network."""

    exit_code = 53


class ConfigError(LazyfsError):
    """A parameter is missing or has a value that cannot be used."""

    exit_code = 60
    errno = _errno.EINVAL


class PublishError(LazyfsError):
    """A revision cannot be published."""

    exit_code = 70


class MountError(LazyfsError):
    """A repository cannot be mounted or unmounted."""

    exit_code = 80


class NotMounted(MountError):
    """Nothing of lazyfs is mounted there."""

    exit_code = 81
    errno = _errno.ENOENT


class ControlError(LazyfsError):
    """The control socket of a mount did not answer as it should."""

    exit_code = 85
