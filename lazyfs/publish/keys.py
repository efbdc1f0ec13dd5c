"""Keys of a repository: the master key signs whitelists, the repository key signs manifests."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lazyfs.errors import PublishError
from lazyfs.repository.trust import MasterKey, load_master_keys

KEY_BITS = 2048
CERTIFICATE_DAYS = 3650
"""Upstream's clients do not look at the dates in the certificate."""


@dataclass(frozen=True, slots=True)
class RepositoryKeys:
    """Both key pairs and the certificate of the repository key."""

    master: rsa.RSAPrivateKey | None
    """None: it is kept elsewhere, as it should be; only whitelists need it."""
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    trusted: tuple[MasterKey, ...] = ()
    """Master public keys: what others have published is believed if one of them vouches for it."""

    @classmethod
    def generate(cls, fqrn: str) -> Self:
        """Fresh keys for a repository, the certificate signed by its own key."""
        key, certificate = _make_certificate(fqrn)
        master = rsa.generate_private_key(65537, KEY_BITS)
        trusted = (MasterKey(Path(f"{fqrn}.pub"), master.public_key()),)
        return cls(master, key, certificate, trusted)

    @classmethod
    def load(cls, folder: Path, fqrn: str) -> Self:
        """The keys that `save` wrote.

        Raises:
            PublishError: a file is missing, holds no key, or belongs to another one.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / f"{fqrn}.crt").read_bytes())
            key = _load_private(folder / f"{fqrn}.key")
            master_path = folder / f"{fqrn}.masterkey"
            master = _load_private(master_path) if master_path.exists() else None
        except OSError as exc:
            raise PublishError(
                f"cannot read the keys: {exc.strerror}",
                path=str(exc.filename),
                hint="make them with 'lazyfs publish keys'",
            ) from exc
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise PublishError(f"not a key: {exc}", path=str(folder)) from exc
        if certificate.public_key() != key.public_key():
            raise PublishError(
                "the certificate belongs to another key", path=str(folder / f"{fqrn}.crt")
            )
        public = folder / f"{fqrn}.pub"
        trusted = load_master_keys([public]) if public.exists() else ()
        return cls(master, key, certificate, trusted)

    def save(self, folder: Path, fqrn: str) -> None:
        """Write ``FQRN.masterkey``, ``.pub``, ``.key`` and ``.crt``; never over existing ones.

        Raises:
            PublishError: a file exists or cannot be written.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise PublishError(f"cannot create: {exc.strerror}", path=str(folder)) from exc
        for suffix in ("masterkey", "pub", "key", "crt"):  # all or none: no half set is left
            if (folder / f"{fqrn}.{suffix}").exists():
                raise _exists(folder / f"{fqrn}.{suffix}")
        _write(folder / f"{fqrn}.masterkey", _private_pem(self.need_master()), 0o600)
        _write(folder / f"{fqrn}.pub", self.public_pem, 0o644)
        _write(folder / f"{fqrn}.key", _private_pem(self.key), 0o600)
        _write(folder / f"{fqrn}.crt", self.certificate_pem, 0o644)

    def with_new_certificate(self, fqrn: str) -> Self:
        """The same master key, with a fresh repository key and certificate."""
        key, certificate = _make_certificate(fqrn)
        return replace(self, key=key, certificate=certificate)

    def replace_saved(self, folder: Path, fqrn: str) -> None:
        """Write ``FQRN.key`` and ``.crt`` in place of older ones, which get the ending ``.old``.

        Raises:
            PublishError: they cannot be written.
        """
        for suffix, content, mode in (
            ("key", _private_pem(self.key), 0o600),
            ("crt", self.certificate_pem, 0o644),
        ):
            path = folder / f"{fqrn}.{suffix}"
            try:
                path.replace(path.with_name(path.name + ".old"))
            except OSError as exc:
                raise PublishError(f"cannot rename: {exc.strerror}", path=str(path)) from exc
            _write(path, content, mode)

    def need_master(self) -> rsa.RSAPrivateKey:
        """The master key.

        Raises:
            PublishError: it is not here.
        """
        if self.master is None:
            raise PublishError(
                "the master key is not among the keys",
                hint="put FQRN.masterkey into the folder of keys for this one command",
            )
        return self.master

    @property
    def public_pem(self) -> bytes:
        """The master public key: what clients are given."""
        return (
            self.need_master()
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as the store keeps it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate in the form that fingerprints cover."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def _make_certificate(fqrn: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """A fresh repository key, and a certificate for it that it signs itself."""
    key = rsa.generate_private_key(65537, KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{fqrn} release managers"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _load_private(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PublishError("not an RSA key", path=str(path))
    return key


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _exists(path: Path) -> PublishError:
    return PublishError(
        "the key exists already", path=str(path), hint="remove it, or choose another folder"
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as exc:
        raise _exists(path) from exc
    except OSError as exc:
        raise PublishError(f"cannot write: {exc.strerror}", path=str(path)) from exc
    with os.fdopen(fd, "wb") as file:
        file.write(content)
