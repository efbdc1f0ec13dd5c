from __future__ import annotations

import datetime

import pytest

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import FormatError, HashMismatch
from lazyfs.repository.manifest import ROOT_PATH_MD5, Manifest, dump_manifest, parse_manifest
from lazyfs.repository.signed import dump_signed, parse_signed, unsigned_document
from lazyfs.repository.whitelist import (
    dump_whitelist,
    format_fingerprint,
    is_listed,
    parse_fingerprint,
    parse_whitelist,
)

HASH = "600230b0ba7620426f2e898f1e1f43c5466efe59"
OTHER = "0123456789012345678901234567890123456789"
EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
MINIMAL = f"C{HASH}\nR{EMPTY_MD5}\nD240\nS7\n".encode()


def utc(*parts: int) -> datetime.datetime:
    year, month, day, hour, minute = parts
    return datetime.datetime(year, month, day, hour, minute, tzinfo=datetime.UTC)


# --- manifest ------------------------------------------------------------------------------


def test_a_minimal_manifest_gets_the_defaults_of_the_format() -> None:
    manifest = parse_manifest(MINIMAL)
    assert manifest.root_catalog == Digest.parse(HASH)
    assert (manifest.ttl, manifest.revision, manifest.catalog_size) == (240, 7, 0)
    assert manifest.certificate is None
    assert not manifest.garbage_collectable


def test_every_field_is_read() -> None:
    text = (
        MINIMAL
        + (
            f"B4096\nNdata.example.org\nX{OTHER}\nH{OTHER}-rmd160\nT1700000000\nGyes\nAyes\n"
            f"M{OTHER}-shake128\nY{OTHER}\n"
        ).encode()
    )
    manifest = parse_manifest(text)
    assert manifest.fqrn == "data.example.org"
    assert manifest.timestamp == 1700000000
    assert manifest.history == Digest(Algorithm.RMD160, bytes.fromhex(OTHER))
    assert manifest.metainfo == Digest(Algorithm.SHAKE128, bytes.fromhex(OTHER))
    assert manifest.garbage_collectable
    assert manifest.alternative_paths
    assert parse_manifest(dump_manifest(manifest)) == manifest


@pytest.mark.parametrize("key", ["C", "R", "D", "S"])
def test_a_required_field_that_is_missing_is_named(key: str) -> None:
    lines = [line for line in MINIMAL.decode().splitlines() if not line.startswith(key)]
    with pytest.raises(FormatError, match=f"without {key}"):
        parse_manifest("".join(f"{line}\n" for line in lines).encode())


@pytest.mark.parametrize(
    ("addition", "revision", "garbage_collectable"),
    [
        (b"S8\n", 8, False),  # a repeated key overwrites
        (b"S9abc\n", 9, False),  # digits lead, the rest is ignored
        (b"Sabc\n", 0, False),  # no digits
        (b"S-5\n", 0, False),
        (b"S18446744073709551615\n", 2**64 - 1, False),
        (b"S9", 7, False),  # a line without its end does not count
        (b"--\nS9\n", 7, False),  # what follows the separator neither
        (b"\n\nQwhatever\nS8\n", 8, False),
        (b"Gyes\n", 7, True),
        (b"GYES\n", 7, False),
        (b"Gyes \n", 7, False),
    ],
)
def test_values_are_as_lenient_as_upstream(
    addition: bytes, revision: int, garbage_collectable: bool
) -> None:
    manifest = parse_manifest(MINIMAL + addition)
    assert manifest.revision == revision
    assert manifest.garbage_collectable is garbage_collectable


@pytest.mark.parametrize(
    "line",
    [
        b"C" + HASH.upper().encode(),
        b"C" + HASH.encode() + b"C",
        b"C" + HASH[:-1].encode(),
        b"C" + EMPTY_MD5.encode(),
        b"C",
        b"X" + HASH.encode() + b"-sha512",
        b"H",
        b"X../../etc/passwd",
        b"M\xff\xfe",
    ],
)
def test_a_digest_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_manifest(MINIMAL + line + b"\n")
    assert caught.value.object == "manifest"


def test_fields_are_dumped_in_the_order_of_upstream() -> None:
    digest = Digest.parse(HASH)
    manifest = Manifest(
        digest, ROOT_PATH_MD5, 240, 3, 5, "a.b", digest, digest, 9, True, False, digest, digest
    )
    keys = [line[:1] for line in dump_manifest(manifest).split(b"\n")[:-1]]
    assert b"".join(keys) == b"CBRDSGANXHTMY"


# --- the frame of signed documents ---------------------------------------------------------


def test_a_signed_document_is_split_where_upstream_splits_it() -> None:
    document = unsigned_document(b"Xa\nYb\n", Algorithm.RMD160)
    # The signature is binary: it may hold anything, separators and newlines included.
    data = dump_signed(document, b"\n--\nsignature\n")
    parsed = parse_signed(data, "manifest")
    assert parsed.text == b"Xa\nYb\n"
    assert parsed.signature == b"\n--\nsignature\n"
    assert parsed.signed_bytes.endswith(b"-rmd160")


def test_a_changed_text_is_noticed_before_any_signature() -> None:
    data = dump_signed(unsigned_document(b"S1\n", Algorithm.SHA1), b"sig")
    with pytest.raises(HashMismatch) as caught:
        parse_signed(data.replace(b"S1", b"S2"), "whitelist")
    assert caught.value.object == "whitelist"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>login</html>",
        b"S1\n--\n",
        b"S1\n--\n" + HASH.encode(),
        b"S1\n--\nzz\nsig",
        b"S1\n--\n" + EMPTY_MD5.encode() + b"\nsig",
        b"--\n" + HASH.encode() + b"\nsig",
    ],
)
def test_what_is_no_signed_document_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_signed(data, "manifest")
    assert caught.value.object == "manifest"


# --- whitelist -----------------------------------------------------------------------------

FINGERPRINT = "AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01"
WHITELIST = f"20240131120000\nE20240301125900\nNa.example.org\n{FINGERPRINT}\n".encode()


def test_a_whitelist_is_read() -> None:
    whitelist = parse_whitelist(WHITELIST)
    assert whitelist.created == utc(2024, 1, 31, 12, 0)
    assert whitelist.expires == utc(2024, 3, 1, 12, 59)
    assert whitelist.fqrn == "a.example.org"
    digits = FINGERPRINT.replace(":", "").lower()
    assert whitelist.fingerprints == (Digest.parse(digits),)
    assert dump_whitelist(whitelist) == WHITELIST


@pytest.mark.parametrize(
    ("line", "suffix"),
    [
        (FINGERPRINT, ""),
        (f"{FINGERPRINT} # Jane's certificate", ""),
        (f"{FINGERPRINT}\tcomment", ""),
        (f"{FINGERPRINT}#comment", ""),
        (f"{FINGERPRINT.lower()}", ""),
        (f"{FINGERPRINT}-RMD160", "-rmd160"),
        (f"{FINGERPRINT}-SHAKE128 x", "-shake128"),
    ],
)
def test_fingerprints_are_found(line: str, suffix: str) -> None:
    found = parse_fingerprint(line.encode())
    assert found == Digest.parse(FINGERPRINT.replace(":", "").lower() + suffix)
    assert parse_fingerprint(format_fingerprint(found).encode()) == found


@pytest.mark.parametrize(
    "line", [b"", b"# a comment", b" " + FINGERPRINT.encode(), b"AB:CD", b"\xff"]
)
def test_other_lines_are_passed_over(line: bytes) -> None:
    assert parse_fingerprint(line) is None


@pytest.mark.parametrize(
    ("now", "valid"),
    [
        (utc(2024, 3, 1, 11, 59), True),
        (utc(2024, 3, 1, 12, 0), False),
        (utc(2024, 3, 1, 12, 58), False),
        (utc(2024, 3, 1, 13, 0), False),
        (utc(2024, 2, 28, 23, 0), True),
    ],
)
def test_a_whitelist_ends_with_the_hour(now: datetime.datetime, valid: bool) -> None:
    assert parse_whitelist(WHITELIST).is_valid_at(now) is valid


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"20240131120000\n",
        b"20240131120000\nNa.example.org\nE20240301120000\n",
        b"2024013112000\nE20240301120000\nNa\n",
        b"20240131120000\nE20241301120000\nNa\n",
        b"20240131120000\nE2024030112000x\nNa\n",
    ],
)
def test_a_malformed_whitelist_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_whitelist(text)
    assert caught.value.object == "whitelist"


@pytest.mark.parametrize("option", [b"Vpkcs7", b"Wcachain"])
def test_a_whitelist_that_wants_checks_that_are_not_made_is_refused(option: bytes) -> None:
    lines = WHITELIST.split(b"\n")
    lines.insert(3, option)
    with pytest.raises(FormatError, match="not supported"):
        parse_whitelist(b"\n".join(lines))


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_certificate_is_listed_by_any_algorithm(algorithm: Algorithm) -> None:
    assert is_listed((algorithm.digest(b"der"),), b"der")
    assert not is_listed((algorithm.digest(b"other"),), b"der")


def test_too_many_fingerprints_are_refused() -> None:
    with pytest.raises(FormatError, match="too many"):
        parse_whitelist(WHITELIST + f"{FINGERPRINT}\n".encode() * 10001)
