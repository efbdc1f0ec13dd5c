"""Read CernVM-FS repositories lazily: as a library, from the shell, or as a mount.

>>> import lazyfs
>>> with lazyfs.Repository.open("http://host/cvmfs/data.example.org", pubkey="k.pub") as repo:
...     for node in repo.current.listdir(b""):
...         print(node.name, node.size)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazyfs.cas.digest import Digest
    from lazyfs.errors import LazyfsError
    from lazyfs.repository.history import Tag
    from lazyfs.repository.node import Node
    from lazyfs.repository.repository import Repository
    from lazyfs.repository.revision import Revision

__version__ = "0.1.0"

__all__ = ["Digest", "LazyfsError", "Node", "Repository", "Revision", "Tag", "__version__"]

_HOMES = {
    "Digest": "lazyfs.cas.digest",
    "LazyfsError": "lazyfs.errors",
    "Node": "lazyfs.repository.node",
    "Repository": "lazyfs.repository.repository",
    "Revision": "lazyfs.repository.revision",
    "Tag": "lazyfs.repository.history",
}


def __getattr__(name: str) -> object:
    # Loaded at first use: `import lazyfs` costs nothing, and `lazyfs --help` need not load TLS.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
