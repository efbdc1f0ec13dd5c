from __future__ import annotations

import pytest
from support.fuse_fakes import directory, file, symlink

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.repository.likeness import Aspect, aspects, has_same_chunks, is_same
from lazyfs.repository.view import Extent

BASE = file("/a/b", b"one")

DIFFERENCES: list[tuple[dict[str, object], Aspect]] = [
    ({"mode": 0o100755}, Aspect.MODE),
    ({"mode": 0o120644}, Aspect.TYPE),
    ({"size": 4}, Aspect.CONTENT),
    ({"mtime_ns": 2}, Aspect.MTIME),
    ({"uid": 1}, Aspect.OWNER),
    ({"gid": 1}, Aspect.OWNER),
    ({"nlink": 2}, Aspect.LINKS),
    ({"rdev": 1}, Aspect.CONTENT),
    ({"symlink": b"x"}, Aspect.TARGET),
    ({"digest": None}, Aspect.CONTENT),
    ({"algorithm": Algorithm.RMD160}, Aspect.CONTENT),
    ({"codec": Codec.NONE}, Aspect.CONTENT),
    ({"chunked": True}, Aspect.CONTENT),
    ({"external": True}, Aspect.CONTENT),
    ({"direct_io": True}, Aspect.CONTENT),
    ({"has_xattrs": True}, Aspect.XATTRS),
    ({"hardlink_group": 1}, Aspect.LINKS),
]


@pytest.mark.parametrize(("change", "aspect"), DIFFERENCES)
def test_every_difference_has_a_name(change: dict[str, object], aspect: Aspect) -> None:
    other = BASE._replace(**change)  # type: ignore[arg-type]
    assert aspects(BASE, other) == {aspect}
    assert not is_same(BASE, other)


def test_where_an_entry_stands_does_not_count() -> None:
    other = BASE._replace(catalog=b"/a", path=b"/z", hidden=True)
    assert is_same(BASE, other)
    assert aspects(BASE, other) == frozenset()
    first, second = BASE._replace(hardlink_group=1), BASE._replace(hardlink_group=2)
    assert is_same(first, second)
    assert aspects(first, second) == frozenset()


def test_of_another_type_nothing_else_is_compared() -> None:
    assert aspects(BASE, directory("/a/b")) == {Aspect.TYPE}


def test_size_and_links_of_directories_say_nothing_of_their_own() -> None:
    other = directory("/d")._replace(size=8192, nlink=7)
    assert aspects(directory("/d"), other) == frozenset()
    assert not is_same(directory("/d"), other)  # but `stat` shows them


def test_the_size_of_a_link_is_no_content() -> None:
    assert aspects(symlink("/l", b"a"), symlink("/l", b"longer")) == {Aspect.TARGET}


def test_chunks_are_compared_by_place_and_object() -> None:
    first, second = (Algorithm.SHA1.digest(text) for text in (b"1", b"2"))

    def extent(offset: int, digest: object) -> Extent:
        assert digest in (first, second)
        chosen = first if digest == first else second
        return Extent(offset, 1, ObjectRef(chosen, ObjectKind.CHUNK, size=1))

    base = [extent(0, first), extent(1, second)]
    assert has_same_chunks(base, list(base))
    assert not has_same_chunks(base, base[:1])
    assert not has_same_chunks(base, [extent(0, first), extent(1, first)])
    assert not has_same_chunks(base, [extent(0, first), extent(2, second)])
