from __future__ import annotations

import pytest

from lazyfs.fuse.paging import PAGE_CHARACTERS, PagedName, pages, parse_name, select


@pytest.mark.parametrize(
    ("raw", "name", "page", "machine"),
    [
        (b"user.chunk_list", b"user.chunk_list", 0, True),
        (b"user.chunk_list~0", b"user.chunk_list", 0, True),
        (b"user.chunk_list~12", b"user.chunk_list", 12, True),
        (b"user.chunk_list@3", b"user.chunk_list", 3, False),
        (b"user.chunk_list~?", b"user.chunk_list", None, True),
        (b"user.chunk_list@?", b"user.chunk_list", None, False),
        (b"user.a~b", b"user.a~b", 0, True),
        (b"user.a~1~2", b"user.a~1", 2, True),
        (b"user.x~", b"user.x~", 0, True),
        (b"~1", b"~1", 0, True),
        (b"user.x~-1", b"user.x~-1", 0, True),
        (b"user.x~99999999999999999999", b"user.x~99999999999999999999", 0, True),
        (b"user.\xff~1", b"user.\xff", 1, True),
    ],
)
def test_names(raw: bytes, name: bytes, page: int | None, machine: bool) -> None:
    assert parse_name(raw) == PagedName(name, page, machine)


LINES = [f"{number:09}\n" for number in range(10000)]


def test_a_page_ends_with_the_line_that_passes_the_length() -> None:
    found = pages(LINES)
    assert "".join(found) == "".join(LINES)
    # One of exactly this length does not end yet.
    assert {len(page) for page in found[:-1]} == {PAGE_CHARACTERS + 10}
    assert all(page.endswith("\n") for page in found)


def test_a_header_begins_each_page_and_counts() -> None:
    header = "0123456\n"
    found = pages(LINES, header)
    assert "".join(page.removeprefix(header) for page in found) == "".join(LINES)
    assert all(page.startswith(header + "0") for page in found)
    assert {len(page) for page in found[:-1]} == {PAGE_CHARACTERS + len(header)}
    assert pages([], header) == [header]


def test_a_header_makes_no_page_of_its_own() -> None:
    lines = ["x" * PAGE_CHARACTERS + "\n"]
    assert len(pages(lines, "header\n")) == 1


def test_there_is_always_a_page() -> None:
    assert pages([]) == [""]
    assert select([], parse_name(b"n")) == ""


def test_programs_get_pages_their_number_and_nothing_beyond() -> None:
    total = len(pages(LINES))
    assert select(LINES, parse_name(b"n")) == pages(LINES)[0]
    assert select(LINES, parse_name(b"n~1")) == pages(LINES)[1]
    assert select(LINES, parse_name(b"n~?")) == f"num_pages, {total}"
    assert select(LINES, parse_name(b"n~%d" % total)) is None


def test_people_get_a_header_and_explanations() -> None:
    shown = select(LINES, parse_name(b"n@1"))
    assert shown is not None
    assert shown.startswith("# Access page at idx: 1")
    assert shown.endswith(pages(LINES)[1])
    for name in (b"n@?", b"n@77"):
        assert select(LINES, parse_name(name))
