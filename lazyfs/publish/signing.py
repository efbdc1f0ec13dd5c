"""Signing manifests and whitelists: two files, two schemes. Source: ``crypto/signature.cc``."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lazyfs.cas.digest import Algorithm
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.repository.manifest import Manifest, dump_manifest
from lazyfs.repository.signed import dump_signed, unsigned_document
from lazyfs.repository.whitelist import Whitelist, dump_whitelist

WHITELIST_DAYS = 30
"""As long as upstream's server makes it valid."""


def sign_manifest(manifest: Manifest, key: rsa.RSAPrivateKey, algorithm: Algorithm) -> bytes:
    """The bytes of ``.cvmfspublished``: SHA-1 with PKCS#1 v1.5 over the digest's text."""
    document = unsigned_document(dump_manifest(manifest), algorithm)
    signature = key.sign(document.signed_bytes, padding.PKCS1v15(), hashes.SHA1())
    return dump_signed(document, signature)


def sign_whitelist(whitelist: Whitelist, master: rsa.RSAPrivateKey, algorithm: Algorithm) -> bytes:
    """The bytes of ``.cvmfswhitelist``: the digest's text itself in a PKCS#1 block."""
    document = unsigned_document(dump_whitelist(whitelist), algorithm)
    return dump_signed(document, private_encrypt(master, document.signed_bytes))


def private_encrypt(key: rsa.RSAPrivateKey, payload: bytes) -> bytes:
    """OpenSSL's RSA_private_encrypt: block type 1 around ``payload``, no DigestInfo.

    No library offers it, because nobody should design such a scheme today; the format has it.
    """
    size = (key.key_size + 7) // 8
    block = b"\x00\x01" + b"\xff" * (size - 3 - len(payload)) + b"\x00" + payload
    numbers = key.private_numbers()
    value = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    return value.to_bytes(size, "big")


def make_whitelist(
    fqrn: str,
    keys: RepositoryKeys,
    algorithm: Algorithm,
    *,
    now: datetime.datetime,
    days: int = WHITELIST_DAYS,
    others: Iterable[bytes] = (),
) -> Whitelist:
    """A whitelist for the repository's certificate, valid from ``now`` for ``days``.

    ``others`` are further certificates that are listed, in DER form.
    """
    fingerprints = tuple(algorithm.digest(der) for der in (keys.certificate_der, *others))
    return Whitelist(now, now + datetime.timedelta(days=days), fqrn, fingerprints)
