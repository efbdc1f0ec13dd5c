"""Random sequences of transactions, beside a plain model of the tree."""

from __future__ import annotations

import io
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from support.publishing import make_repository

from lazyfs.errors import PublishError
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.source import SourceEntry, SourceItem
from lazyfs.publish.transaction import Transaction
from lazyfs.repository.check import check_revision
from lazyfs.repository.repository import Repository

SIZES = ChunkSizes(minimum=64, average=128, maximum=256)
NAMES = [b"a", b"b", b".cvmfscatalog", b".cvmfscatalog"]


@dataclass(frozen=True, slots=True)
class Thing:
    """An entry of the model. Directories have no content, links a target."""

    kind: int
    content: bytes = b""
    mode: int = 0o644

    def entry(self, path: bytes) -> SourceEntry:
        target = self.content if self.kind == stat.S_IFLNK else b""
        size = len(self.content) if self.kind == stat.S_IFREG else 0
        return SourceEntry(
            path.rpartition(b"/")[2],
            self.kind | self.mode,
            size,
            1_000_000_007,
            1,
            2,
            target=target,
        )


DIRECTORY = Thing(stat.S_IFDIR, mode=0o755)
MARKER = Thing(stat.S_IFREG)

things = st.one_of(
    st.just(DIRECTORY),
    st.builds(
        Thing, st.just(stat.S_IFREG), st.binary(max_size=10), st.sampled_from([0o644, 0o755])
    ),
    st.builds(Thing, st.just(stat.S_IFREG), st.binary(min_size=300, max_size=600)),
    st.builds(Thing, st.just(stat.S_IFLNK), st.just(b"x"), st.just(0o777)),
    st.builds(Thing, st.just(stat.S_IFIFO)),
)
numbers = st.integers(0, 1000)
changes = st.one_of(
    st.tuples(st.just("put"), numbers, st.sampled_from(NAMES), things),
    st.tuples(st.just("put"), numbers, st.sampled_from(NAMES), things),
    st.tuples(st.just("remove"), numbers, st.none(), st.none()),
    st.tuples(st.just("link"), numbers, st.sampled_from(NAMES), numbers),
)
"""What to do, to which of the paths that there are, with which new name, and with what."""

transactions = st.lists(st.lists(changes, min_size=5, max_size=25), min_size=2, max_size=4)

Model = dict[bytes, Thing]


def allowed(model: Model, path: bytes, thing: Thing) -> bool:
    """Whether the format can have it there."""
    parent, _, name = path.rpartition(b"/")
    if parent and model.get(parent, MARKER).kind != stat.S_IFDIR:
        return False
    return name != b".cvmfscatalog" or (bool(parent) and thing.kind == stat.S_IFREG)


def put(model: Model, path: bytes, thing: Thing) -> None:
    old = model.get(path)
    if old is not None and not (old.kind == thing.kind == stat.S_IFDIR):
        remove(model, path)
    model[path] = thing


def remove(model: Model, path: bytes) -> None:
    for below in [p for p in model if p == path or p.startswith(path + b"/")]:
        del model[below]


class Items:
    """A source of one entry."""

    name = "test"

    def __init__(self, path: bytes, thing: Thing) -> None:
        self._item = SourceItem(
            b"/" + path.rpartition(b"/")[2],
            thing.entry(path),
            (lambda: io.BytesIO(thing.content)) if thing.kind == stat.S_IFREG else None,
        )

    def items(self) -> Iterator[SourceItem]:
        yield self._item


Change = tuple[str, int, bytes | None, object]

NESTED: list[Change] = [
    *(("put", 0, b"a", DIRECTORY), ("put", 1, b"b", DIRECTORY), ("put", 2, b"a", DIRECTORY)),
    *(("put", number, b".cvmfscatalog", MARKER) for number in (1, 2, 3)),
]
"""Catalogs at ``/a``, ``/a/b`` and ``/a/b/a``."""

REMOVE_MARKER: Change = ("remove", 1, None, None)
"""Of ``/a``, when there is nothing else before it."""


@settings(max_examples=40)
@given(transactions)
@example([NESTED, [("remove", 1, None, None)]])  # the marker of /a: its catalog goes up
@example([NESTED, [("remove", 3, None, None)]])  # that of /a/b, between two others
@example([NESTED, [("remove", 2, None, None)]])  # /a/b with the catalogs in it
@example([NESTED, [("remove", 0, None, None)]])
@example([[*NESTED, ("remove", 3, None, None)], NESTED])
@example([[*NESTED[:1], ("put", 1, b".cvmfscatalog", MARKER), ("link", 1, b"b", 1), REMOVE_MARKER]])
def test_transactions_equal_a_plain_model(sequence: list[list[Change]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder), {}, sizes=SIZES)
        model: Model = {}
        for batch in sequence:
            with repository.publisher.transaction() as transaction:
                for change in batch:
                    apply(transaction, model, change)
                transaction.commit()
            compare(repository.root, repository.pubkey, model)


def apply(transaction: Transaction, model: Model, change: Change) -> None:
    action, number, name, argument = change
    if action == "remove":
        if model:
            path = chosen(model, number)
            transaction.remove(path)
            remove(model, path)
        with pytest.raises(PublishError):
            transaction.remove(b"/not/there")
        return
    directories = {b"": DIRECTORY} | {p: t for p, t in model.items() if t == DIRECTORY}
    path = chosen(directories, number) + b"/" + (name or b"")
    if isinstance(argument, Thing):
        if allowed(model, path, argument):
            transaction.ingest(Items(path, argument), path.rpartition(b"/")[0])
            put(model, path, argument)
    elif isinstance(argument, int) and model:
        link(transaction, model, path, chosen(model, argument))


def chosen(model: Model, number: int) -> bytes:
    return sorted(model)[number % len(model)]


def link(transaction: Transaction, model: Model, path: bytes, target: bytes) -> None:
    thing = model[target]
    hides = path == target or target.startswith(path + b"/")
    if thing.kind == stat.S_IFDIR or hides or not allowed(model, path, thing):
        return
    transaction.tree.link(path, target)
    put(model, path, thing)


def compare(root: Path, pubkey: Path, model: Model) -> None:
    with (
        tempfile.TemporaryDirectory() as cache,
        Repository.open(root, pubkey=pubkey, cache=cache) as opened,
    ):
        revision = opened.current
        found: Model = {}
        for node in revision.walk():
            content = node.symlink
            if node.is_file:
                with revision.open_file(node) as file:
                    content = file.read()
            found[node.path] = Thing(stat.S_IFMT(node.mode), content, stat.S_IMODE(node.mode))
        del found[b""]
        assert found == model
        roots = {path.rpartition(b"/")[0] for path in model if path.endswith(b"/.cvmfscatalog")}
        report = check_revision(revision)
        assert not report.problems
        assert report.catalogs == 1 + len(roots)
