from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import SignatureError, VerificationError
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.signing import (
    WHITELIST_DAYS,
    make_whitelist,
    private_encrypt,
    sign_manifest,
    sign_whitelist,
)
from lazyfs.repository.manifest import ROOT_PATH_MD5, Manifest
from lazyfs.repository.trust import MasterKey, read_manifest, verify_manifest, verify_whitelist

FQRN = "sign.example.org"
NOW = datetime.datetime(2026, 5, 17, 10, 30, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def keys() -> RepositoryKeys:
    return RepositoryKeys.generate(FQRN)


def manifest(algorithm: Algorithm) -> Manifest:
    return Manifest(Digest(algorithm, b"\x07" * 20), ROOT_PATH_MD5, 240, 3, fqrn=FQRN)


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_signed_manifest_is_believed(keys: RepositoryKeys, algorithm: Algorithm) -> None:
    found, document = read_manifest(sign_manifest(manifest(algorithm), keys.key, algorithm), FQRN)
    assert found == manifest(algorithm)
    assert document.digest.algorithm is algorithm
    assert verify_manifest(document, keys.certificate_pem) == keys.certificate_der


def test_manifest_of_another_key_is_not(keys: RepositoryKeys) -> None:
    signed = sign_manifest(manifest(Algorithm.SHA1), keys.need_master(), Algorithm.SHA1)
    with pytest.raises(SignatureError):
        verify_manifest(read_manifest(signed, FQRN)[1], keys.certificate_pem)


def test_whitelist_and_manifest_have_different_schemes(keys: RepositoryKeys) -> None:
    payload = b"0123456789abcdef0123456789abcdef01234567"
    public = keys.need_master().public_key()
    block = private_encrypt(keys.need_master(), payload)
    # The payload itself is in the block, with no DigestInfo around it.
    assert public.recover_data_from_signature(block, padding.PKCS1v15(), None) == payload
    assert len(block) == 256


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128])
def test_signed_whitelist_is_believed(keys: RepositoryKeys, algorithm: Algorithm) -> None:
    listed = make_whitelist(FQRN, keys, algorithm, now=NOW)
    signed = sign_whitelist(listed, keys.need_master(), algorithm)
    trusted = (MasterKey(Path("k.pub"), keys.need_master().public_key()),)
    found = verify_whitelist(signed, FQRN, trusted, now=NOW)
    assert found.fingerprints == (algorithm.digest(keys.certificate_der),)
    assert found.expires - found.created == datetime.timedelta(days=WHITELIST_DAYS)
    with pytest.raises(VerificationError):
        verify_whitelist(signed, FQRN, trusted, now=NOW + datetime.timedelta(days=31))
    with pytest.raises(VerificationError):
        verify_whitelist(signed + b"x", FQRN, trusted, now=NOW)


def test_fingerprint_covers_the_der_form(keys: RepositoryKeys) -> None:
    listed = make_whitelist(FQRN, keys, Algorithm.SHA1, now=NOW)
    assert listed.fingerprints[0].raw == hashlib.sha1(keys.certificate_der).digest()
