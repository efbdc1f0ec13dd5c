from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from lazyfs.errors import PublishError
from lazyfs.publish.keys import RepositoryKeys

FQRN = "keys.example.org"


@pytest.fixture(scope="module")
def keys() -> RepositoryKeys:
    return RepositoryKeys.generate(FQRN)


def test_saved_keys_load_again(keys: RepositoryKeys, tmp_path: Path) -> None:
    keys.save(tmp_path / "keys", FQRN)
    loaded = RepositoryKeys.load(tmp_path / "keys", FQRN)
    assert loaded.public_pem == keys.public_pem
    assert loaded.certificate_der == keys.certificate_der
    assert (tmp_path / "keys" / f"{FQRN}.pub").read_bytes() == keys.public_pem


def test_private_keys_are_private(keys: RepositoryKeys, tmp_path: Path) -> None:
    keys.save(tmp_path, FQRN)
    modes = {p.suffix: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {".masterkey": 0o600, ".key": 0o600, ".pub": 0o644, ".crt": 0o644}


@pytest.mark.parametrize("suffix", ["masterkey", "pub", "key", "crt"])
def test_keys_are_never_overwritten_nor_half_written(
    keys: RepositoryKeys, tmp_path: Path, suffix: str
) -> None:
    existing = tmp_path / f"{FQRN}.{suffix}"
    existing.write_bytes(b"precious")
    with pytest.raises(PublishError, match="exists already"):
        keys.save(tmp_path, FQRN)
    assert existing.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [existing]


def test_files_that_are_no_keys(keys: RepositoryKeys, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="publish keys"):
        RepositoryKeys.load(tmp_path, FQRN)
    keys.save(tmp_path, FQRN)
    (tmp_path / f"{FQRN}.key").write_bytes(b"garbage")
    with pytest.raises(PublishError, match="not a key"):
        RepositoryKeys.load(tmp_path, FQRN)


def test_locked_key_and_foreign_certificate(keys: RepositoryKeys, tmp_path: Path) -> None:
    keys.save(tmp_path, FQRN)
    path = tmp_path / f"{FQRN}.key"
    locked = keys.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    path.write_bytes(locked)
    with pytest.raises(PublishError, match="not a key"):
        RepositoryKeys.load(tmp_path, FQRN)
    path.write_bytes((tmp_path / f"{FQRN}.masterkey").read_bytes())
    with pytest.raises(PublishError, match="another key"):
        RepositoryKeys.load(tmp_path, FQRN)


def test_openssl_reads_the_files(keys: RepositoryKeys, tmp_path: Path) -> None:
    keys.save(tmp_path, FQRN)
    for command in (
        ["openssl", "rsa", "-check", "-noout", "-in", f"{FQRN}.masterkey"],
        ["openssl", "x509", "-noout", "-in", f"{FQRN}.crt"],
        ["openssl", "pkey", "-pubin", "-noout", "-in", f"{FQRN}.pub"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
