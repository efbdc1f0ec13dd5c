"""Magic extended attributes: what the real client tells about files and mounts, same names.

Source: upstream ``magic_xattr.cc``. Values are computed when asked for, in a worker thread.
"""

from __future__ import annotations

import io
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazyfs
from lazyfs.cas.codec import Codec
from lazyfs.cas.prove import recompute
from lazyfs.cas.store import ObjectRef
from lazyfs.config.settings import XattrVisibility
from lazyfs.errors import LazyfsError
from lazyfs.fuse.paging import parse_name, select
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

if TYPE_CHECKING:
    from lazyfs.fuse.filesystem import Filesystem

EMULATED_VERSION = "2.12.0.0"
"""The client whose attributes these are; tools compare it."""

MAX_METAINFO = 65536
"""Bytes; more does not fit into an attribute, and upstream shows no more either."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an attribute is asked of."""

    filesystem: Filesystem
    node: Node
    revision: Revision


@dataclass(frozen=True, slots=True)
class Table:
    """Lines of which each page begins with the same header."""

    header: str
    lines: list[str]


Value = str | list[str] | Table | None
"""A value in one page, lines that are shown in as many pages as they need, or nothing."""


Provider = Callable[[Subject], Value]
"""Computes one attribute."""


class MagicXattrs:
    """The magic attributes of one mount."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._protected = frozenset(os.fsencode(n) for n in filesystem.settings.protected_xattrs)
        self._gids = frozenset((0, *filesystem.settings.privileged_gids))

    def knows(self, raw: bytes, node: Node) -> bool:
        """Whether the name, page and all, is magic for a node."""
        applies = APPLIES.get(parse_name(raw).name)
        return applies is not None and applies(node)

    def may_read(self, raw: bytes, gid: int) -> bool:
        """Whether a process of that group may read it."""
        return parse_name(raw).name not in self._protected or gid in self._gids

    def value(self, raw: bytes, node: Node, revision: Revision) -> bytes | None:
        """The value, None where the node has none; may block on the disk."""
        wanted = parse_name(raw)
        provider: Provider = PROVIDERS[wanted.name]
        value = provider(Subject(self._filesystem, node, revision))
        match value:
            case None:
                page = None
            case str():
                page = select([value], wanted)
            case list():
                page = select(value, wanted)
            case Table(header, lines):
                page = select(lines, wanted, header)
        return None if page is None else page.encode(errors="surrogateescape")

    def listed(self, node: Node) -> list[bytes]:
        """The names to list for a node."""
        visibility = self._filesystem.settings.xattr_visibility
        if visibility is XattrVisibility.NEVER or (
            visibility is XattrVisibility.ROOT_ONLY and node.path
        ):
            return []
        return [name for name, applies in APPLIES.items() if applies(node)]


# --- of the mount ------------------------------------------------------------------------------


def _expires(subject: Subject) -> str:
    left = subject.filesystem.expires_in()
    return "never (fixed root catalog)" if left is None else str(int(left // 60))


def _host_list(subject: Subject) -> str:
    hosts = subject.filesystem.repository.downloader.status().hosts
    at = next(index for index, host in enumerate(hosts) if host.active)
    return ";".join(host.url for host in (*hosts[at:], *hosts[:at]))


def _proxy_list(subject: Subject) -> list[str]:
    groups = subject.filesystem.repository.downloader.status().proxies.groups
    return [f"{proxy}\n" for group in groups for proxy in group]


# Where no external server is configured, upstream still has all that it takes to ask one.


def _external_proxies(subject: Subject) -> list[str]:
    external = subject.filesystem.repository.external_downloader
    groups = external.status().proxies.groups if external else (("DIRECT",),)
    return [f"{proxy}\n" for group in groups for proxy in group]


def _external_host(subject: Subject) -> str:
    external = subject.filesystem.repository.external_downloader
    return external.status().host if external else ""


def _external_timeout(subject: Subject) -> str:
    repository = subject.filesystem.repository
    downloader = repository.external_downloader or repository.downloader
    return f"{downloader.status().timeout_direct:g}"


def _speed(subject: Subject) -> str:
    counters = subject.filesystem.repository.downloader.status().counters
    if not counters.seconds:
        return "n/a"
    return str(int(counters.bytes_received / 1024 / counters.seconds))


def _hit_rate(subject: Subject) -> str:
    counters = subject.filesystem.repository.store.counters
    total = counters.hits + counters.misses
    return f"{100 * counters.hits / total:.3f}" if total else "n/a"


def _open_descriptors(subject: Subject) -> str:
    return str(len(os.listdir("/proc/self/fd")))  # noqa: PTH208


def _metainfo(subject: Subject) -> str:
    try:
        content = subject.filesystem.repository.metainfo()
    except LazyfsError:
        content = None
    if content is None:
        return "metainfo not available"
    if len(content) > MAX_METAINFO:
        return "metainfo exceeds maximum size"
    # One page, whatever its length: who reads JSON by its plain name must get all of it.
    return content.decode(errors="surrogateescape")


def _repo_counters(subject: Subject) -> list[str]:
    return _counter_lines(subject.revision.counters())


def _catalog_counters(subject: Subject) -> list[str]:
    info = subject.revision.catalog_info(subject.node.path)
    where = info.mountpoint.decode(errors="surrogateescape")
    head = [f"catalog_hash: {info.digest}\n", f"catalog_mountpoint: {where}\n"]
    return head + _counter_lines(info.counters)


def _counter_lines(counters: dict[str, int]) -> list[str]:
    return [f"{name},{value}\n" for name, value in sorted(counters.items())]


# --- of a file ---------------------------------------------------------------------------------


def _hash(subject: Subject) -> str | None:
    return str(subject.node.digest) if subject.node.digest is not None else None


def _local_hash(subject: Subject) -> str | None:
    node = subject.node
    if node.digest is None:
        return None
    # Upstream compresses whatever the codec, so for uncompressed objects this is not the hash.
    algorithm, codec = node.digest.algorithm, Codec.ZLIB
    if not node.size:
        return str(recompute(io.BytesIO(), algorithm, codec))
    handle = subject.filesystem.repository.store.peek(
        ObjectRef(node.digest, codec=node.codec, size=node.size)
    )
    if handle is None:
        return "Not in cache"
    with handle, os.fdopen(os.dup(handle.fileno()), "rb") as file:
        file.seek(0)
        return str(recompute(file, algorithm, codec))


def _chunks(subject: Subject) -> str | None:
    node = subject.node
    if not node.is_file:
        return None
    return str(len(subject.revision.extents(node))) if node.chunked else "1"


def _chunk_list(subject: Subject) -> Table | None:
    node = subject.node
    if not node.is_file:
        return None
    if node.chunked:
        lines = [
            f"{extent.ref.digest},{extent.offset},{extent.size}\n"
            for extent in subject.revision.extents(node)
        ]
    else:
        lines = [f"{node.digest},0,{node.size}\n"]
    return Table("hash,offset,size\n", lines)


def _of_file(show: Callable[[Node], str]) -> Provider:
    return lambda subject: show(subject.node) if subject.node.is_file else None


def _compression(node: Node) -> str:
    return "zlib" if node.codec is Codec.ZLIB else "none"


def _external_url(subject: Subject) -> str | None:
    if not subject.node.external:
        return None
    return _external_host(subject) + subject.node.path.decode(errors="surrogateescape")


def _raw_link(subject: Subject) -> str | None:
    node = subject.node
    return node.symlink.decode(errors="surrogateescape") if node.is_symlink else None


PROVIDERS: dict[bytes, Provider] = {
    b"user.fqrn": lambda s: s.filesystem.repository.fqrn,
    b"user.revision": lambda s: str(s.revision.number),
    b"user.root_hash": lambda s: str(s.revision.root_hash),
    b"user.tag": lambda s: s.revision.tag,
    b"user.expires": _expires,
    b"user.hash": _hash,
    b"user.lhash": _local_hash,
    b"user.chunks": _chunks,
    b"user.chunk_list": _chunk_list,
    b"user.compression": _of_file(_compression),
    b"user.external_file": _of_file(lambda n: str(int(n.external))),
    b"user.direct_io": _of_file(lambda n: str(int(n.direct_io))),
    b"user.external_url": _external_url,
    b"user.rawlink": _raw_link,
    b"xfsroot.rawlink": _raw_link,
    b"user.catalog_counters": _catalog_counters,
    b"user.repo_counters": _repo_counters,
    b"user.repo_metainfo": _metainfo,
    b"user.nclg": lambda s: str(len(s.revision.open_catalogs())),
    b"user.host": lambda s: s.filesystem.repository.downloader.status().host,
    b"user.host_list": _host_list,
    b"user.proxy": lambda s: s.filesystem.repository.downloader.status().proxies.current,
    b"user.proxy_list": _proxy_list,
    b"user.proxy_list_external": _external_proxies,
    b"user.external_host": _external_host,
    b"user.external_timeout": _external_timeout,
    b"user.timeout": lambda s: f"{s.filesystem.repository.downloader.status().timeout:g}",
    b"user.timeout_direct": lambda s: (
        f"{s.filesystem.repository.downloader.status().timeout_direct:g}"
    ),
    b"user.rx": lambda s: str(
        s.filesystem.repository.downloader.status().counters.bytes_received // 1024
    ),
    b"user.speed": _speed,
    b"user.ndownload": lambda s: str(s.filesystem.repository.downloader.status().counters.requests),
    b"user.hitrate": _hit_rate,
    b"user.nopen": lambda s: str(s.filesystem.statistics.opens),
    b"user.ndiropen": lambda s: str(s.filesystem.statistics.opendirs),
    b"user.usedfd": _open_descriptors,
    b"user.useddirp": lambda s: str(s.filesystem.statistics.open_directories),
    b"user.maxfd": lambda s: str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    b"user.nioerr": lambda s: str(s.filesystem.statistics.errors),
    b"user.timestamp_last_ioerr": lambda s: str(s.filesystem.statistics.last_error),
    b"user.ncleanup24": lambda s: str(s.filesystem.repository.cache.cleanups_last_day()),
    b"user.inode_max": lambda s: str(s.filesystem.nodes.highest),
    b"user.pid": lambda s: str(os.getpid()),
    b"user.uptime": lambda s: str(int((time.time() - s.filesystem.statistics.started) // 60)),
    b"user.version": lambda s: EMULATED_VERSION,
    b"user.lazyfs_version": lambda s: lazyfs.__version__,
    b"user.logbuffer": lambda s: [f"{line}\n" for line in s.filesystem.log_buffer.lines()],
    b"user.pubkeys": lambda s: (
        s.filesystem.repository.public_keys_pem().decode().splitlines(keepends=True)
    ),
}

_KIND: dict[bytes, Callable[[Node], bool]] = {
    b"user.hash": lambda n: n.digest is not None,
    b"user.lhash": lambda n: n.digest is not None,
    b"user.chunks": lambda n: n.is_file,
    b"user.chunk_list": lambda n: n.is_file,
    b"user.compression": lambda n: n.is_file,
    b"user.external_file": lambda n: n.is_file,
    b"user.direct_io": lambda n: n.is_file,
    b"user.external_url": lambda n: n.external,
    b"user.rawlink": lambda n: n.is_symlink,
    b"xfsroot.rawlink": lambda n: n.is_symlink,
}


def _anywhere(node: Node) -> bool:
    return True


APPLIES: dict[bytes, Callable[[Node], bool]] = {
    name: _KIND.get(name, _anywhere) for name in PROVIDERS
}
"""Whether a node has the attribute."""
