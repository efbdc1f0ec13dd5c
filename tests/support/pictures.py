"""`picture`: everything that a mount shows, to be compared with what another shows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

Facts = dict[str, object]
"""What is known of one path, by the name of the fact."""

Differences = dict[tuple[bytes, str], tuple[object, object]]
"""Facts that are not the same in two pictures, by path and name: in the one, in the other."""

MAGIC = frozenset(
    (
        *("user.hash", "user.lhash", "user.chunks", "user.chunk_list", "user.chunk_list~?"),
        *("user.chunk_list~1", "user.compression", "user.external_file", "user.external_url"),
        *("user.direct_io", "user.rawlink", "xfsroot.rawlink", "user.catalog_counters"),
        *("user.fqrn", "user.revision", "user.root_hash", "user.tag", "user.repo_counters"),
        *("user.fqrn~?", "user.fqrn~1"),
    )
)
"""Magic attributes that are asked for at every path."""

OF_THE_MOUNT = frozenset(
    (
        *("user.pubkeys", "user.nclg", "user.host", "user.host_list"),
        *("user.proxy", "user.proxy_list", "user.proxy_list_external", "user.external_host"),
        *("user.external_timeout", "user.timeout", "user.timeout_direct", "user.nioerr"),
        *("user.timestamp_last_ioerr", "user.ncleanup24", "user.useddirp", "user.authz"),
    )
)
"""Those that are the same at every path and however busy the mount is."""

BUSY = frozenset(
    (
        *("user.ndownload", "user.rx", "user.speed", "user.hitrate", "user.logbuffer"),
        *("user.usedfd", "user.maxfd", "user.nopen", "user.ndiropen", "user.pid", "user.uptime"),
        *("user.inode_max", "user.expires", "user.version", "user.repo_metainfo"),
    )
)
"""Those that two clients answer differently: because they are two, or do not answer at once, or,
the last one, because the reference client never finds it."""

OWN = frozenset(("user.lazyfs_version",))
"""Those that only one client has."""


def picture(root: Path) -> dict[bytes, Facts]:
    """Everything that a mount shows, by path."""
    found: dict[bytes, Facts] = {}
    top = os.fsencode(root)
    pending = [b""]
    while pending:
        at = pending.pop()
        found[at] = facts(top + at)
        names = found[at].get("entries", ())
        assert isinstance(names, list | tuple)
        pending += [at + b"/" + name for name in names]
    found[b""] |= {name: xattr(top, name) for name in OF_THE_MOUNT} | capacity(top)
    return found


def facts(path: bytes) -> Facts:
    """Of one path. Content is read before ``user.lhash`` is asked for, which tells of the cache."""
    status = os.lstat(path)
    shown: Facts = {
        "mode": stat.filemode(status.st_mode),
        "size": status.st_size,
        "blocks": (status.st_blocks, status.st_blksize),
        "times": (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns),
        "links": status.st_nlink,
        "owner": (status.st_uid, status.st_gid),
        "rdev": status.st_rdev,
    }
    if stat.S_ISDIR(status.st_mode):
        shown["entries"] = os.listdir(path)  # noqa: PTH208 - names are bytes
        for missing in (b"none", b".cvmfs", b"\xff"):
            shown[f"lookup {missing!r}"] = outcome(os.lstat, path + b"/" + missing)
    elif stat.S_ISREG(status.st_mode):
        shown["content"] = Path(os.fsdecode(path)).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        shown["target"] = os.readlink(path)  # noqa: PTH115 - names are bytes
    listed = os.listxattr(path, follow_symlinks=False)
    # The reference client lists magic names twice where it lists them.
    shown["listed"] = set(listed) - BUSY - OWN
    asked = (MAGIC | set(listed)) - BUSY - OWN
    return shown | {name: xattr(path, name) for name in sorted(asked)}


def capacity(path: bytes) -> Facts:
    """What ``statfs`` tells, but for what depends on how much is cached."""
    told = os.statvfs(path)
    return {
        "block size": (told.f_bsize, told.f_frsize),
        "blocks of the quota": told.f_blocks,
        "entries": (told.f_files, told.f_ffree, told.f_favail),
    }


def xattr(path: bytes, name: str) -> object:
    """An attribute's value, or the name of the error."""
    return outcome(lambda at: os.getxattr(at, name, follow_symlinks=False), path)


def outcome(ask: Callable[[bytes], object], path: bytes) -> object:
    """What is answered for a path, or the name of the error."""
    try:
        return ask(path)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def differences(one: Mapping[bytes, Facts], other: Mapping[bytes, Facts]) -> Differences:
    """Every fact that is not the same in both, and that only one has."""
    found: Differences = {}
    for path in one.keys() | other.keys():
        these, those = one.get(path, {}), other.get(path, {})
        for fact in these.keys() | those.keys():
            if these.get(fact) != those.get(fact):
                found[path, fact] = (these.get(fact), those.get(fact))
    return found
