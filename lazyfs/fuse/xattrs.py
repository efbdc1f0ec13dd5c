"""`Xattrs`: what ``getxattr`` and ``listxattr`` answer, stored and magic ones together."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cachetools import LRUCache

from lazyfs.cas.digest import Digest
from lazyfs.errors import NotCached
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.errnos import Answer, Refusal
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.magic import MagicXattrs
from lazyfs.fuse.nodes import Known
from lazyfs.repository.revision import Revision

if TYPE_CHECKING:
    from lazyfs.fuse.filesystem import Filesystem

KEPT_NODES = 1024
"""Nodes whose stored attributes are kept in memory; few files have any."""

UNSUPPORTED = frozenset(
    (b"system.posix_acl_access", b"system.posix_acl_default", b"security.selinux")
)
"""Attributes that mean nothing here, but where one is published. ``ls -l`` asks for two of them of
every file, unless it is told that the file system has no such thing."""


class Xattrs:
    """Extended attributes of one mount."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._tree = filesystem.tree
        self._workers = filesystem.workers
        self._magic = MagicXattrs(filesystem)
        self._stored: LRUCache[tuple[int, Digest], dict[bytes, bytes]] = LRUCache(KEPT_NODES)

    async def get(self, nodeid: int, name: bytes, gid: int) -> bytes:
        """The value of one attribute.

        Args:
            nodeid: The node.
            name: As the kernel has it.
            gid: Primary group of the caller.

        Raises:
            Refusal: there is none of that name, or it is not for the caller.
            LazyfsError: a catalog cannot be loaded.
        """
        known = self._tree.known(nodeid)
        if self._magic.knows(name, known.node):
            value = (
                await self._magic_value(known, name) if self._magic.may_read(name, gid) else None
            )
        elif known.node.has_xattrs:
            value = (await self._stored_of(known)).get(name)
        else:
            # What overlayfs and the kernel ask on each lookup and exec ends here, without a wait.
            value = None
        if value is None:
            raise Refusal(Answer.NOT_SUPPORTED if name in UNSUPPORTED else Answer.NO_ATTRIBUTE)
        return value

    async def names(self, nodeid: int) -> list[bytes]:
        """The names of all attributes that are to be listed."""
        known = self._tree.known(nodeid)
        stored = await self._stored_of(known) if known.node.has_xattrs else {}
        return list(dict.fromkeys([*stored, *self._magic.listed(known.node)]))

    async def _stored_of(self, known: Known) -> dict[bytes, bytes]:
        lease = known.lease or self._tree.lease
        key = (known.nodeid, lease.view.root_hash)
        found = self._stored.get(key)
        if found is None:
            node = known.node
            found = await self._tree.ask(lease, lambda view, _: view.xattrs(node), node.path)
            self._stored[key] = found
        return found

    async def _magic_value(self, known: Known, name: bytes) -> bytes | None:
        known = await self._tree.settled(known.nodeid)
        lease = (known.lease or self._tree.lease).acquire()
        node = known.node
        try:
            return await run_blocking(
                self._workers.control, self._magic.value, name, node, _revision(lease.cached)
            )
        except NotCached:
            return await run_blocking(
                self._workers.catalogs, self._magic.value, name, node, _revision(lease.view)
            )
        finally:
            lease.release()


def _revision(view: LiveRevision) -> Revision:
    """A mount's revisions are real ones."""
    return cast("Revision", view)
