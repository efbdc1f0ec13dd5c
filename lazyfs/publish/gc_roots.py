"""Which revisions a garbage collection keeps, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazyfs.cas.digest import Digest
from lazyfs.errors import ConfigError, LazyfsError, PublishError
from lazyfs.publish.history_writer import REFLOG_CATALOG, Reference
from lazyfs.publish.known_revision import KnownRevision, read_revision
from lazyfs.publish.ledger import Head
from lazyfs.publish.target_store import TargetStore
from lazyfs.repository.history import Tag

REPAIR_HINT = (
    "nothing was removed; repair the revision with 'lazyfs publish check --repair', or let it go"
)


@dataclass(frozen=True, slots=True)
class GcPolicy:
    """Which revisions stay, beside the newest one and all that have tags.

    Raises:
        ConfigError: not even the newest one would stay.
    """

    keep_last: int = 1
    """How many of the newest ones, each the one before the other."""
    keep_since: float | None = None
    """Unix time: all that were published since. None: none for that reason."""
    grace: float = 3600.0
    """Seconds for which readers may still hold the documents of an older manifest, and for which
    what lies in ``data/txn`` may belong to a publisher that is still alive."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ConfigError(
                f"cannot keep {self.keep_last} revisions", hint="the newest one always stays"
            )


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """A revision that stays."""

    revision: KnownRevision
    reasons: tuple[str, ...]
    """For people."""


def find_roots(
    store: TargetStore,
    head: Head,
    tags: Sequence[Tag],
    references: Sequence[Reference],
    policy: GcPolicy,
) -> list[KeptRevision]:
    """The revisions that stay, the newest one first.

    The last ones are found from each to the one before it: a reflog also has rows of publishes
    that were killed before their manifest. A revision that the reflog does not name any more
    has been collected, and so has all before it.

    Raises:
        PublishError: one of them cannot be read: what it needs cannot be told then.
    """
    reasons: dict[Digest, list[str]] = {head.manifest.root_catalog: ["newest"]}

    def keep(root: Digest, reason: str) -> None:
        reasons.setdefault(root, []).append(reason)

    for tag in tags:
        keep(tag.root_hash, f"tag {tag.name}")
    if policy.keep_since is not None:
        for reference in references:
            if reference.type == REFLOG_CATALOG and reference.timestamp >= policy.keep_since:
                keep(reference.digest, "recent")
    logged = {r.digest for r in references if r.type == REFLOG_CATALOG}
    read: dict[Digest, KnownRevision] = {}
    last = _read(store, head.manifest.root_catalog, "newest", read)
    for _ in range(policy.keep_last - 1):
        if last.previous is None or last.previous not in logged:
            break
        reason = f"one of the last {policy.keep_last}"
        keep(last.previous, reason)
        last = _read(store, last.previous, reason, read)
    return [
        KeptRevision(_read(store, root, why[0], read), tuple(why)) for root, why in reasons.items()
    ]


def _read(
    store: TargetStore, root: Digest, reason: str, read: dict[Digest, KnownRevision]
) -> KnownRevision:
    if root not in read:
        try:
            read[root] = read_revision(store, root)
        except PublishError:
            raise  # the target fails, not the catalog
        except LazyfsError as exc:
            raise PublishError(
                f"a revision that is to stay ({reason}) cannot be read: {exc}",
                object=str(root),
                hint=REPAIR_HINT,
            ) from exc
    return read[root]
