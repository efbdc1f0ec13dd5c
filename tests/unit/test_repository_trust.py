from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.documents import FQRN, NOW, make_keys, manifest_for, signed_manifest, signed_whitelist

from lazyfs.cas.digest import Algorithm
from lazyfs.errors import (
    CertificateRefused,
    ConfigError,
    FormatError,
    SignatureError,
    VerificationError,
    WhitelistExpired,
)
from lazyfs.publish.signing import sign_manifest
from lazyfs.repository.trust import (
    Blacklist,
    MasterKey,
    check_blacklist,
    check_certificate,
    load_blacklist,
    load_master_keys,
    read_manifest,
    verify_manifest,
    verify_whitelist,
)
from lazyfs.repository.whitelist import format_fingerprint

KEYS = make_keys()
OTHERS = make_keys("others")
MASTER = MasterKey(Path("good.pub"), KEYS.need_master().public_key())
OTHER_MASTER = MasterKey(Path("other.pub"), OTHERS.need_master().public_key())


# --- manifests -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_manifest_signed_by_its_certificate_is_believed(algorithm: Algorithm) -> None:
    manifest, document = read_manifest(signed_manifest(KEYS, algorithm=algorithm), FQRN)
    assert manifest.fqrn == FQRN
    assert verify_manifest(document, KEYS.certificate_pem) == KEYS.certificate_der


def test_a_manifest_signed_by_another_key_is_refused() -> None:
    _, document = read_manifest(signed_manifest(OTHERS), FQRN)
    with pytest.raises(SignatureError) as caught:
        verify_manifest(document, KEYS.certificate_pem)
    assert caught.value.object == "manifest"


def test_a_manifest_with_bytes_after_its_signature_is_refused() -> None:
    _, document = read_manifest(signed_manifest(KEYS) + b"\n", FQRN)
    with pytest.raises(SignatureError):
        verify_manifest(document, KEYS.certificate_pem)


def test_a_manifest_without_a_signature_is_refused() -> None:
    _, document = read_manifest(signed_manifest(KEYS)[:-256], FQRN)
    assert document.signature == b""
    with pytest.raises(SignatureError):
        verify_manifest(document, KEYS.certificate_pem)


def test_a_manifest_of_another_repository_is_refused() -> None:
    with pytest.raises(VerificationError, match="belongs to"):
        read_manifest(signed_manifest(KEYS), "other.example.org")


def test_a_manifest_with_another_root_path_is_refused() -> None:
    manifest = replace(manifest_for(KEYS), root_path=Algorithm.MD5.digest(b"/somewhere"))
    with pytest.raises(VerificationError, match="root path"):
        read_manifest(sign_manifest(manifest, KEYS.key, Algorithm.SHA1), FQRN)


EC_CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBbDCCARGgAwIBAgIUKhNYRXe/HqIEYDwLcoUbJrC8dJgwCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    "certificate", [b"", b"garbage", EC_CERTIFICATE, KEYS.public_pem, KEYS.certificate_pem[:-200]]
)
def test_a_certificate_that_is_none_is_refused(certificate: bytes) -> None:
    _, document = read_manifest(signed_manifest(KEYS), FQRN)
    with pytest.raises(FormatError) as caught:
        verify_manifest(document, certificate)
    assert caught.value.object == "certificate"


# --- whitelists ----------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(MASTER,), (OTHER_MASTER, MASTER), (MASTER, OTHER_MASTER)])
def test_any_of_the_master_keys_will_do(keys: tuple[MasterKey, ...]) -> None:
    whitelist = verify_whitelist(signed_whitelist(KEYS), FQRN, keys, now=NOW)
    check_certificate(KEYS.certificate_der, whitelist)


def test_a_whitelist_signed_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"other\.pub") as caught:
        verify_whitelist(signed_whitelist(KEYS), FQRN, (OTHER_MASTER,), now=NOW)
    assert "--pubkey" in (caught.value.hint or "")


def test_a_whitelist_signed_in_the_manner_of_manifests_is_refused() -> None:
    # PKCS#1 with DigestInfo is another scheme; recovering it gives other bytes.
    manifest = sign_manifest(manifest_for(KEYS), KEYS.need_master(), Algorithm.SHA1)
    signature = manifest.rpartition(b"\n")[2]
    forged = signed_whitelist(KEYS)[:-256] + signature[-256:]
    with pytest.raises(SignatureError):
        verify_whitelist(forged, FQRN, (MASTER,), now=NOW)


def test_a_whitelist_with_bytes_after_its_signature_is_refused() -> None:
    with pytest.raises(SignatureError):
        verify_whitelist(signed_whitelist(KEYS) + b"\0", FQRN, (MASTER,), now=NOW)


def test_a_whitelist_of_another_repository_is_refused() -> None:
    with pytest.raises(VerificationError, match="belongs to"):
        verify_whitelist(signed_whitelist(KEYS), "other.example.org", (MASTER,), now=NOW)


def test_an_expired_whitelist_is_refused_unless_it_is_allowed() -> None:
    late = NOW + datetime.timedelta(days=365)
    with pytest.raises(WhitelistExpired) as caught:
        verify_whitelist(signed_whitelist(KEYS), FQRN, (MASTER,), now=late)
    assert "--allow-expired" in str(caught.value)
    verify_whitelist(signed_whitelist(KEYS), FQRN, (MASTER,), now=late, allow_expired=True)


def test_allowing_expiry_allows_no_other_signature() -> None:
    late = NOW + datetime.timedelta(days=365)
    with pytest.raises(SignatureError):
        verify_whitelist(signed_whitelist(OTHERS), FQRN, (MASTER,), now=late, allow_expired=True)


def test_a_certificate_that_is_not_listed_is_refused() -> None:
    whitelist = verify_whitelist(signed_whitelist(KEYS), FQRN, (MASTER,), now=NOW)
    with pytest.raises(CertificateRefused):
        check_certificate(OTHERS.certificate_der, whitelist)


# --- blacklists ----------------------------------------------------------------------------


def blacklist_of(tmp_path: Path, content: str) -> Blacklist:
    path = tmp_path / "blacklist"
    path.write_text(content)
    return load_blacklist((path, tmp_path / "missing"))


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.SHAKE128])
def test_a_blacklisted_certificate_is_refused(tmp_path: Path, algorithm: Algorithm) -> None:
    fingerprint = format_fingerprint(algorithm.digest(KEYS.certificate_der))
    blacklist = blacklist_of(tmp_path, f"# revoked\n{fingerprint} stolen\n")
    with pytest.raises(CertificateRefused):
        check_blacklist(KEYS.certificate_der, manifest_for(KEYS), blacklist)
    check_blacklist(OTHERS.certificate_der, manifest_for(OTHERS), blacklist)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (f"<{FQRN} 8", True),
        (f"< {FQRN}   8  ", True),
        (f"<{FQRN} 7", False),
        ("<other.example.org 8", False),
        (f"<{FQRN}", False),
        (f"{FQRN} 8", False),
    ],
)
def test_revisions_below_a_number_are_refused(tmp_path: Path, line: str, refused: bool) -> None:
    blacklist = blacklist_of(tmp_path, line + "\n")
    assert blacklist.refuses_revision(FQRN, 7) is refused


def test_no_blacklist_refuses_nothing(tmp_path: Path) -> None:
    assert load_blacklist((tmp_path / "missing",)) == Blacklist()


# --- master keys ---------------------------------------------------------------------------


def test_keys_come_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_bytes(KEYS.public_pem)
    (tmp_path / "b.pub").write_bytes(OTHERS.public_pem)
    (tmp_path / "c.txt").write_text("not a key")
    keys = load_master_keys((tmp_path, tmp_path / "a.pub"))
    assert [key.pem for key in keys] == [KEYS.public_pem, OTHERS.public_pem, KEYS.public_pem]


def test_a_file_may_hold_several_keys(tmp_path: Path) -> None:
    path = tmp_path / "all.pub"
    path.write_bytes(b"# two of them\n" + KEYS.public_pem + b"\n" + OTHERS.public_pem)
    assert [key.pem for key in load_master_keys((path,))] == [KEYS.public_pem, OTHERS.public_pem]


def elliptic_key() -> bytes:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", KEYS.public_pem[:100], KEYS.certificate_pem, elliptic_key()],
    ids=["empty", "garbage", "cut", "certificate", "elliptic"],
)
def test_one_file_that_is_no_key_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "good.pub").write_bytes(KEYS.public_pem)
    (tmp_path / "bad.pub").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_master_keys((tmp_path,))
    assert caught.value.path == str(tmp_path / "bad.pub")


def test_no_keys_at_all_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for paths in ((), (tmp_path,), (tmp_path / "missing.pub",)):
        with pytest.raises(ConfigError) as caught:
            load_master_keys(paths)
        assert "--pubkey" in (caught.value.hint or "")
