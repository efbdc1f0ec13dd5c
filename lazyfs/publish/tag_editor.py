"""`TagEditor`: names revisions, and takes names away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lazyfs.errors import PublishError, RevisionNotFound
from lazyfs.publish.content import ContentStore
from lazyfs.publish.history_writer import TRUNK, TRUNK_PREVIOUS, check_new_name
from lazyfs.publish.known_revision import find_revision
from lazyfs.publish.lease import held
from lazyfs.publish.ledger import Head, Ledger
from lazyfs.publish.target_store import opened_store
from lazyfs.repository.history import Tag


class TagEditor:
    """Changes the tags of one repository; each call is one new manifest.

    As with the real server, the new manifest names the same root catalog under the same revision
    number, a new history database, and the time of the change: clients that read the newest
    revision have nothing to do. `Ledger.tags` lists what there is.

    Args:
        ledger: Of the repository.
        wait: Seconds to wait for another publisher to end.
    """

    def __init__(self, ledger: Ledger, *, wait: float = 0.0) -> None:
        self._ledger = ledger
        self._wait = wait

    def add(self, name: str, *, revision: str | None = None, description: str = "") -> Tag:
        """Give a revision a name, which must be free.

        Args:
            name: The new tag.
            revision: Another tag or a root hash; None: the newest revision.
            description: For people.

        Raises:
            RevisionNotFound: there is no such revision.
            PublishError: the name is taken or cannot be one, or another publisher is at work.
        """

        def added(head: Head, tags: Sequence[Tag]) -> list[Tag]:
            check_new_name(name, {tag.name for tag in tags})
            with opened_store(self._ledger.target) as store:
                found = find_revision(self._ledger, head, revision, store)
            tag = Tag(name, found.root_hash, found.number, found.timestamp, description, found.size)
            return [*tags, tag]

        return self._change(f"tag {name}", added)[-1]

    def remove(self, names: Iterable[str]) -> tuple[Tag, ...]:
        """Take tags away, all or none; their revisions stay until they are collected.

        Returns:
            What was removed.

        Raises:
            RevisionNotFound: there is no such tag.
            PublishError: it is one of those that every publish moves, or another publisher is at
                work.
        """
        wanted = set(names)
        for name in sorted(wanted & {TRUNK, TRUNK_PREVIOUS}):
            raise PublishError(
                f"the tag {name!r} cannot be removed", hint="every publish moves it by itself"
            )
        removed: list[Tag] = []

        def kept(head: Head, tags: Sequence[Tag]) -> list[Tag]:
            missing = wanted - {tag.name for tag in tags}
            if missing:
                raise RevisionNotFound(f"no such tag: {', '.join(sorted(missing))}")
            removed.extend(tag for tag in tags if tag.name in wanted)
            return [tag for tag in tags if tag.name not in wanted]

        if wanted:
            self._change("remove tags", kept)
        return tuple(removed)

    def _change(
        self, purpose: str, change: Callable[[Head, Sequence[Tag]], list[Tag]]
    ) -> list[Tag]:
        """Replace the tags by what ``change`` makes of them; returns the new ones."""
        ledger = self._ledger
        ledger.head()
        with held(ledger.target, purpose, wait=self._wait):
            head = ledger.head()
            ledger.check_readable()
            tags = change(head, ledger.tags(head))
            store = ContentStore(ledger.target, head.manifest.root_catalog.algorithm)
            manifest = replace(head.manifest, timestamp=ledger.now(head))
            ledger.advance(store, manifest, after=head, tags=tags)
            return tags
