"""Long extended attributes in pages: ``NAME~N``, ``NAME@N``; upstream ``magic_xattr.cc``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PAGE_CHARACTERS = 40_000
"""A page ends with the line that passes this length (upstream: ``kMaxCharsPerPage``)."""

_NAME = re.compile(rb"(.+?)([~@])(\?|[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class PagedName:
    """An attribute's name with its page."""

    name: bytes
    page: int | None
    """None: how many pages there are is asked for."""
    machine: bool
    """``~``: no header, and ENODATA for a page that is not there."""


def parse_name(raw: bytes) -> PagedName:
    """The name and the page that ``raw`` asks for; the plain name means page 0."""
    match = _NAME.fullmatch(raw)
    if match is None:
        return PagedName(raw, 0, machine=True)
    page = None if match[3] == b"?" else int(match[3])
    return PagedName(match[1], page, match[2] == b"~")


def pages(lines: Sequence[str], header: str = "") -> list[str]:
    """``lines`` put together into pages, each begun by ``header``; at least one, maybe empty."""
    found: list[str] = []
    page = header
    for line in lines:
        page += line
        if len(page) > PAGE_CHARACTERS:
            found.append(page)
            page = header
    if page != header or not found:
        found.append(page)
    return found


def select(lines: Sequence[str], wanted: PagedName, header: str = "") -> str | None:
    """The page that is asked for, None for ENODATA."""
    found = pages(lines, header)
    if wanted.page is None:
        if wanted.machine:
            return f"num_pages, {len(found)}"
        last = len(found) - 1
        return f"Access this attribute page by page, by {_show(wanted)}@0 to {_show(wanted)}@{last}"
    if wanted.page >= len(found):
        return (
            None if wanted.machine else f"Page {wanted.page} does not exist; there are {len(found)}"
        )
    if wanted.machine:
        return found[wanted.page]
    return f"# Access page at idx: {wanted.page}\n{found[wanted.page]}"


def _show(wanted: PagedName) -> str:
    return wanted.name.decode(errors="replace")
