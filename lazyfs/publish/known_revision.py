"""`KnownRevision`: a revision of which a target has all."""

from __future__ import annotations

from dataclasses import dataclass

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError, LazyfsError, RevisionNotFound
from lazyfs.publish.history_writer import REFLOG_CATALOG
from lazyfs.publish.ledger import Head, Ledger
from lazyfs.publish.target_store import TargetStore
from lazyfs.repository.catalog import Catalog


@dataclass(frozen=True, slots=True)
class KnownRevision:
    """A revision as its root catalog describes it."""

    root_hash: Digest
    number: int
    timestamp: int
    """Unix time of publication."""
    size: int
    """Bytes of the root catalog, uncompressed."""
    previous: Digest | None
    """The revision before, which may be gone; None: there was none."""
    schema: float
    """Of the root catalog."""
    tag: str = ""
    """The tag by which it was found; empty if by none."""


def find_revision(
    ledger: Ledger, head: Head, name: str | None, store: TargetStore
) -> KnownRevision:
    """The revision that people call ``name``.

    Args:
        ledger: Of the repository.
        head: The newest revision.
        name: A tag, or the root hash of the newest revision, of a tag or of one in the reflog;
            None: the newest revision. A root catalog that is merely there does not count: what it
            names may have been collected.
        store: Reads root catalogs.

    Raises:
        RevisionNotFound: there is none of that name.
        LazyfsError: its root catalog cannot be read.
    """
    if name is None:
        return read_revision(store, head.manifest.root_catalog)
    tags = ledger.tags(head)
    for tag in tags:
        if tag.name == name:
            return read_revision(store, tag.root_hash, tag=name)
    try:
        digest = Digest.parse_content(name)
    except FormatError:
        raise RevisionNotFound(
            f"no such tag: {name}", hint="give a tag or the root hash of a revision"
        ) from None
    known = {head.manifest.root_catalog, *(tag.root_hash for tag in tags)}
    known |= {r.digest for r in ledger.references() if r.type == REFLOG_CATALOG}
    if digest not in known:
        raise RevisionNotFound(
            f"no revision with root hash {name}",
            hint="neither a tag nor the reflog names it; it may have been collected",
        )
    return read_revision(store, digest)


def read_revision(store: TargetStore, digest: Digest, *, tag: str = "") -> KnownRevision:
    """The revision with that root catalog.

    Raises:
        LazyfsError: the catalog cannot be read, or is no root catalog.
    """
    ref = ObjectRef(digest, ObjectKind.CATALOG)
    handle = store.open(ref)
    size = handle.size
    catalog = Catalog(handle, digest, b"")
    try:
        if catalog.root_prefix:
            raise FormatError("not a root catalog", object=catalog.name)
        return KnownRevision(
            digest,
            catalog.number("revision"),
            catalog.number("last_modified"),
            size,
            _previous(catalog),
            catalog.schema,
            tag,
        )
    finally:
        catalog.close()


def _previous(catalog: Catalog) -> Digest | None:
    text = catalog.properties.get("previous_revision", "")
    if not text:
        return None
    try:
        digest = Digest.parse_content(text)
    except LazyfsError as exc:
        raise FormatError("the revision before has no hash", object=catalog.name) from exc
    return None if digest.is_null else digest
