from __future__ import annotations

import os

import pytest

from lazyfs.net.escape import escape_path, redact

KEPT = "0123456789abcXYZ/:.@+-_~[],"


def test_what_the_real_client_keeps_is_kept() -> None:
    assert escape_path(KEPT) == KEPT


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a b", "a%20b"),
        ("50%#?&", "50%25%23%3F%26"),
        ("\N{GREEK SMALL LETTER MU}", "%CE%BC"),
        (os.fsdecode(b"\xff\xfe"), "%FF%FE"),
        ("\r\n", "%0D%0A"),
    ],
)
def test_all_else_is_escaped_byte_by_byte_in_upper_case(text: str, escaped: str) -> None:
    assert escape_path(text) == escaped


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@host:80/x", "http://host:80/x"),
        ("http://us@er:p@host/x@y", "http://host/x@y"),
        ("http://host/x", "http://host/x"),
        ("http://[broken", "(a malformed URL)"),
        ("DIRECT", "DIRECT"),
    ],
)
def test_redact_hides_who_logs_in(url: str, shown: str) -> None:
    assert redact(url) == shown
