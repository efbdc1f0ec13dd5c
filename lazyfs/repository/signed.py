r"""The frame that manifest and whitelist share: text, digest of the text, signature.

::

    <text, one field a line>--\n<digest of the text, as text>\n<signature to the end of the file>

Source: upstream ``crypto/signature.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import FormatError, HashMismatch

SEPARATOR = b"--\n"


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document as it came, its digest line checked, its signature not yet."""

    text: bytes
    """What the digest covers: everything before the separator."""
    digest: Digest
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What is signed: the digest's text form."""
        return str(self.digest).encode()


def parse_signed(data: bytes, name: str) -> SignedDocument:
    """Split a signed document and check that its digest fits its text.

    Args:
        data: The whole file.
        name: For errors, e.g. ``manifest``.

    Raises:
        FormatError: there is no separator or no digest line.
        HashMismatch: the text was changed.
    """
    at = data.find(b"\n" + SEPARATOR)
    if at < 0:
        raise FormatError("no signature", object=name)
    text = data[: at + 1]
    line, newline, signature = data[at + 1 + len(SEPARATOR) :].partition(b"\n")
    if not newline:
        raise FormatError("no signature after the digest", object=name)
    try:
        digest = Digest.parse_content(line.decode("ascii", "replace"))
    except FormatError as exc:
        raise FormatError(exc.message, object=name) from exc
    if digest.algorithm.digest(text) != digest:
        raise HashMismatch("the digest does not fit the text", object=name)
    return SignedDocument(text, digest, signature)


def unsigned_document(text: bytes, algorithm: Algorithm) -> SignedDocument:
    """A document that waits for its signature; for publishers."""
    return SignedDocument(text, algorithm.digest(text), b"")


def dump_signed(document: SignedDocument, signature: bytes) -> bytes:
    """The file's bytes."""
    return document.text + SEPARATOR + document.signed_bytes + b"\n" + signature
