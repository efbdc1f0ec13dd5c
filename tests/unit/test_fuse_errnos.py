from __future__ import annotations

import errno

import pytest

from lazyfs import errors
from lazyfs.fuse.errnos import Answer, Refusal, errno_of, is_failure


@pytest.mark.parametrize(
    ("error", "expected", "failure"),
    [
        (Refusal(Answer.STALE), errno.ESTALE, False),
        (Refusal(Answer.NO_ATTRIBUTE), errno.ENODATA, False),
        (Refusal(Answer.READ_ONLY), errno.EROFS, False),
        (Refusal(Answer.BAD_HANDLE), errno.EBADF, False),
        (errors.PathNotFound("gone"), errno.ENOENT, False),
        (errors.NotADirectory("file"), errno.ENOTDIR, False),
        (errors.IsADirectory("directory"), errno.EISDIR, False),
        (errors.PathError("wrong"), errno.EINVAL, False),
        (errors.ObjectMissing("gone"), errno.EIO, True),
        (errors.HashMismatch("bad"), errno.EIO, True),
        (errors.FormatError("bad"), errno.EIO, True),
        (errors.Timeout("slow"), errno.EIO, True),
        (errors.NotCached("offline"), errno.EIO, True),
        (errors.QuotaExceeded("full"), errno.ENOSPC, True),
        (errors.CacheFull("full"), errno.ENOSPC, True),
        (OSError(errno.EMFILE, "many"), errno.EMFILE, True),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC, True),
        (OSError(errno.EBADF, "a defect"), errno.EIO, True),
        (OSError("without a number"), errno.EIO, True),
        (ValueError("a defect"), errno.EIO, True),
    ],
)
def test_the_table(error: Exception, expected: int, failure: bool) -> None:
    assert errno_of(error) == expected
    assert is_failure(error) is failure
