"""The manifest ``.cvmfspublished``: names the root catalog of the newest revision.

Source: upstream ``manifest.cc``; numbers are parsed as leniently as there, digests are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import FormatError

MANIFEST_PATH = ".cvmfspublished"

ROOT_PATH_MD5 = Digest(Algorithm.MD5, bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e"))
"""MD5 of the empty path; the only root path there is."""

_LEADING_DIGITS = re.compile(rb"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of a manifest. Letters in brackets are their keys."""

    root_catalog: Digest
    """(C)"""
    root_path: Digest
    """(R)"""
    ttl: int
    """(D) seconds; a mounted client uses the catalog's TTL property instead"""
    revision: int
    """(S)"""
    catalog_size: int = 0
    """(B) bytes of the root catalog, uncompressed; 0: not stated"""
    fqrn: str = ""
    """(N)"""
    certificate: Digest | None = None
    """(X)"""
    history: Digest | None = None
    """(H)"""
    timestamp: int = 0
    """(T) Unix time of publication"""
    garbage_collectable: bool = False
    """(G)"""
    alternative_paths: bool = False
    """(A)"""
    metainfo: Digest | None = None
    """(M)"""
    reflog: Digest | None = None
    """(Y) digest of the raw ``.cvmfsreflog``"""


def parse_manifest(text: bytes) -> Manifest:
    """The manifest in ``text``, signature and all that follows the separator ignored.

    Raises:
        FormatError: a required field is missing, or a digest is none.
    """
    fields: dict[bytes, bytes] = {}
    for line in text.split(b"\n")[:-1]:
        if line == b"--":
            break
        if line:
            fields[line[:1]] = line[1:]
    missing = [key.decode() for key in (b"C", b"R", b"D", b"S") if key not in fields]
    if missing:
        raise FormatError(f"incomplete, without {', '.join(missing)}", object="manifest")
    return Manifest(
        root_catalog=_digest(fields[b"C"], Digest.parse_content),
        root_path=_digest(fields[b"R"], Digest.parse),
        ttl=_number(fields[b"D"]),
        revision=_number(fields[b"S"]),
        catalog_size=_number(fields.get(b"B", b"")),
        fqrn=fields.get(b"N", b"").decode("utf-8", "replace"),
        certificate=_optional_digest(fields.get(b"X")),
        history=_optional_digest(fields.get(b"H")),
        timestamp=_number(fields.get(b"T", b"")),
        garbage_collectable=fields.get(b"G") == b"yes",
        alternative_paths=fields.get(b"A") == b"yes",
        metainfo=_optional_digest(fields.get(b"M")),
        reflog=_optional_digest(fields.get(b"Y")),
    )


def dump_manifest(manifest: Manifest) -> bytes:
    """The text of a manifest, without separator and signature, fields in upstream's order."""
    lines = [
        f"C{manifest.root_catalog}",
        f"B{manifest.catalog_size}",
        f"R{manifest.root_path}",
        f"D{manifest.ttl}",
        f"S{manifest.revision}",
        f"G{_yes(manifest.garbage_collectable)}",
        f"A{_yes(manifest.alternative_paths)}",
    ]
    optional = (
        ("N", manifest.fqrn),
        ("X", manifest.certificate),
        ("H", manifest.history),
        ("T", manifest.timestamp),
        ("M", manifest.metainfo),
        ("Y", manifest.reflog),
    )
    lines += [f"{key}{value}" for key, value in optional if value]
    return "".join(f"{line}\n" for line in lines).encode()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _number(value: bytes) -> int:
    match = _LEADING_DIGITS.match(value)
    return int(match[0]) & 0xFFFFFFFFFFFFFFFF if match else 0


def _digest(value: bytes, parse: Callable[[str], Digest]) -> Digest:
    try:
        return parse(value.decode("ascii", "replace"))
    except FormatError as exc:
        raise FormatError(exc.message, object="manifest") from exc


def _optional_digest(value: bytes | None) -> Digest | None:
    return None if value is None else _digest(value, Digest.parse_content)
