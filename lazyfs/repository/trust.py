"""Trust: from the master public keys on this machine to a manifest that may be believed.

The order is the real client's (upstream ``manifest_fetch.cc``): name and root path, certificate,
signature of the manifest, whitelist, fingerprint.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lazyfs.cas.digest import Digest
from lazyfs.errors import (
    CertificateRefused,
    ConfigError,
    FormatError,
    SignatureError,
    VerificationError,
    WhitelistExpired,
)
from lazyfs.repository.manifest import ROOT_PATH_MD5, Manifest, parse_manifest
from lazyfs.repository.signed import SignedDocument, parse_signed
from lazyfs.repository.whitelist import Whitelist, is_listed, parse_fingerprint, parse_whitelist

_MAX_KEY_FILE = 1 << 20
_KEY_HINT = "give --pubkey FILE or set CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR"
_PEM_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)
_REVISION_LINE = re.compile(rb"<\s*(\S+)\s+([0-9]{1,20})\s*$")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master public key and the file it came from."""

    path: Path
    key: rsa.RSAPublicKey

    @property
    def pem(self) -> bytes:
        """The key as PEM text."""
        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@dataclass(frozen=True, slots=True)
class Blacklist:
    """Certificates that are refused whatever the whitelist says, and revisions that are."""

    fingerprints: tuple[Digest, ...] = ()
    lowest_revisions: tuple[tuple[str, int], ...] = ()
    """(fqrn, revision): lower revisions are refused."""

    def refuses_revision(self, fqrn: str, revision: int) -> bool:
        """Whether that revision is too old to be read."""
        return any(name == fqrn and revision < low for name, low in self.lowest_revisions)


def load_master_keys(paths: Sequence[Path]) -> tuple[MasterKey, ...]:
    """The keys in files (one or several each) and in folders (there: all ``*.pub``).

    Raises:
        ConfigError: no key at all, or a file that has none. One bad file is an error, as for the
            real client: a key that silently does not count helps nobody.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.pub")) if path.is_dir() else [path]
    if not files:
        where = ", ".join(str(path) for path in paths) or "the configuration"
        raise ConfigError(f"no master public key in {where}", hint=_KEY_HINT)
    return tuple(MasterKey(path, key) for path in files for key in _load_keys(path))


def _load_keys(path: Path) -> list[rsa.RSAPublicKey]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_FILE)
    except OSError as exc:
        raise ConfigError(
            f"cannot read the master key: {exc.strerror}", path=str(path), hint=_KEY_HINT
        ) from exc
    blocks = _PEM_BLOCK.findall(content)
    if not blocks:
        raise ConfigError("not a public key in PEM form", path=str(path), hint=_KEY_HINT)
    return [_load_key(block, path) for block in blocks]


def _load_key(pem: bytes, path: Path) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError("not a public key in PEM form", path=str(path)) from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise ConfigError("not an RSA key", path=str(path))
    return key


def load_blacklist(paths: Iterable[Path]) -> Blacklist:
    """What the files say; missing files say nothing.

    Raises:
        ConfigError: a file is there and cannot be read.
    """
    fingerprints: list[Digest] = []
    revisions: list[tuple[str, int]] = []
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise ConfigError(f"cannot read the blacklist: {exc.strerror}", path=str(path)) from exc
        for line in content.split(b"\n"):
            if match := _REVISION_LINE.match(line):
                revisions.append((match[1].decode("utf-8", "replace"), int(match[2])))
            elif found := parse_fingerprint(line):
                fingerprints.append(found)
    return Blacklist(tuple(fingerprints), tuple(revisions))


def read_manifest(data: bytes, fqrn: str) -> tuple[Manifest, SignedDocument]:
    """The manifest, its name and root path checked, its signature not yet.

    Raises:
        FormatError, HashMismatch: it does not parse.
        VerificationError: it is another repository's.
    """
    document = parse_signed(data, "manifest")
    manifest = parse_manifest(document.text)
    if manifest.fqrn != fqrn:
        raise VerificationError(
            f"the manifest belongs to {manifest.fqrn!r}, not to {fqrn!r}",
            object="manifest",
            hint="check the server's URL",
        )
    if manifest.root_path != ROOT_PATH_MD5:
        raise VerificationError("the manifest has another root path", object="manifest")
    return manifest, document


def verify_manifest(document: SignedDocument, certificate_pem: bytes) -> bytes:
    """The certificate's DER form, if the manifest is signed by it.

    Raises:
        FormatError: the certificate is none.
        SignatureError: another key signed the manifest.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = certificate.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as exc:
        raise FormatError("not an X.509 certificate in PEM form", object="certificate") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise FormatError("the certificate has no RSA key", object="certificate")
    try:
        # The scheme is fixed: SHA-1 over the digest's text, whatever algorithm that digest has.
        key.verify(
            document.signature,
            document.signed_bytes,
            padding.PKCS1v15(),
            hashes.SHA1(),
        )
    except (InvalidSignature, ValueError) as exc:
        raise SignatureError(
            "the manifest is not signed by the repository's certificate", object="manifest"
        ) from exc
    return certificate.public_bytes(serialization.Encoding.DER)


def verify_whitelist(
    data: bytes,
    fqrn: str,
    keys: Sequence[MasterKey],
    *,
    now: datetime.datetime,
    allow_expired: bool = False,
) -> Whitelist:
    """The whitelist, if a master key signed it and its time is not over.

    Raises:
        FormatError, HashMismatch: it does not parse.
        VerificationError: it is another repository's.
        SignatureError: none of the keys signed it.
        WhitelistExpired: its time is over and ``allow_expired`` is not set.
    """
    document = parse_signed(data, "whitelist")
    whitelist = parse_whitelist(document.text)
    if whitelist.fqrn != fqrn:
        raise VerificationError(
            f"the whitelist belongs to {whitelist.fqrn!r}, not to {fqrn!r}", object="whitelist"
        )
    if not any(_recovers(key.key, document) for key in keys):
        names = ", ".join(str(key.path) for key in keys)
        raise SignatureError(
            f"the whitelist is not signed by any of the master keys in {names}",
            object="whitelist",
            hint="get the repository's public key from its owner and give it with --pubkey",
        )
    if not whitelist.is_valid_at(now) and not allow_expired:
        raise WhitelistExpired(
            f"the whitelist expired at {whitelist.expires:%Y-%m-%d %H:%M} UTC",
            object="whitelist",
            hint="ask the publisher to renew it, or accept it with --allow-expired",
        )
    return whitelist


def _recovers(key: rsa.RSAPublicKey, document: SignedDocument) -> bool:
    """Whether the signature is the PKCS#1 block of the digest text itself, without DigestInfo."""
    try:
        signed = key.recover_data_from_signature(document.signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return False
    return signed == document.signed_bytes


def check_certificate(certificate_der: bytes, whitelist: Whitelist) -> None:
    """Return if the whitelist has the certificate.

    Raises:
        CertificateRefused: it has not.
    """
    if not is_listed(whitelist.fingerprints, certificate_der):
        raise CertificateRefused(
            "the certificate that signed the manifest is not on the whitelist",
            object="whitelist",
            hint="ask the publisher which certificate is in use",
        )


def check_blacklist(certificate_der: bytes, manifest: Manifest, blacklist: Blacklist) -> None:
    """Return if this machine's blacklist lets certificate and revision pass.

    Raises:
        CertificateRefused: it does not.
    """
    if is_listed(blacklist.fingerprints, certificate_der):
        raise CertificateRefused(
            "the certificate that signed the manifest is blacklisted on this machine",
            object="manifest",
        )
    check_revision(manifest.fqrn, manifest.revision, blacklist)


def check_revision(fqrn: str, revision: int, blacklist: Blacklist) -> None:
    """Return if this machine's blacklist lets the revision pass.

    Raises:
        CertificateRefused: it does not.
    """
    if blacklist.refuses_revision(fqrn, revision):
        raise CertificateRefused(
            f"revision {revision} is blacklisted on this machine", object="manifest"
        )
