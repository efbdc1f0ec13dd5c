"""The one table from errors to the errno that a request is answered with."""

from __future__ import annotations

import enum
import errno

from lazyfs.errors import LazyfsError


class Answer(enum.IntEnum):
    """What the file system says of itself, where no part below it has failed."""

    STALE = errno.ESTALE
    """The node was of a path that is no more; the kernel then looks the path up again."""
    NO_ENTRY = errno.ENOENT
    NO_ATTRIBUTE = errno.ENODATA
    READ_ONLY = errno.EROFS
    NAME_TOO_LONG = errno.ENAMETOOLONG
    BAD_HANDLE = errno.EBADF
    NOT_A_DIRECTORY = errno.ENOTDIR
    IS_A_DIRECTORY = errno.EISDIR
    INVALID = errno.EINVAL
    NOT_IMPLEMENTED = errno.ENOSYS
    NOT_SUPPORTED = errno.EOPNOTSUPP


class Refusal(Exception):
    """A request is answered with an errno, and nothing is wrong with lazyfs or the repository."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.name)
        self.answer = answer


RESOURCE_ERRNOS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC))
"""What the local system may refuse for want of something; shown as it is."""


def errno_of(error: BaseException) -> int:
    """The errno that stands for ``error``."""
    if isinstance(error, Refusal):
        return error.answer.value
    if isinstance(error, LazyfsError):
        return error.errno
    if isinstance(error, OSError) and error.errno in RESOURCE_ERRNOS:
        return error.errno
    return errno.EIO


def is_failure(error: BaseException) -> bool:
    """Whether ``error`` means that something is broken, and not just that something is absent."""
    if isinstance(error, Refusal):
        return False
    return not isinstance(error, LazyfsError) or error.errno not in _ORDINARY


_ORDINARY = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL))
