"""`S3Target`: a repository in an object store that speaks S3."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import TypeVar

from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.errors import ConfigError, NetworkError, ObjectMissing, PublishError
from lazyfs.net.patient_pool import Patience
from lazyfs.publish.s3_errors import KEPT, unconditional, unreachable
from lazyfs.publish.s3_exchange import Answer, Unsettled, served_as
from lazyfs.publish.s3_location import S3Location
from lazyfs.publish.target import DOCUMENT_LIMIT, Document, StoredObject

T = TypeVar("T")

SPOOL_SIZE = 8 << 20
"""Bytes of one upload that are kept in memory; what is more goes into a temporary file."""

ONE_REQUEST_SIZE = 1 << 20
"""Up to this size, to upload an object on condition that there is none costs less than to ask
first."""

_PROBE = "data/txn/probe-"


class S3Target:
    """A prefix of a bucket. The bucket must be there.

    What makes publishing safe are conditional writes (``If-Match``, ``If-None-Match``); `prepare`
    refuses servers that do not know them.

    Args:
        location: The prefix, and how to speak to the server.
        patience: How long to wait, and how often to try.
        environ: Where credentials may be.

    Raises:
        ConfigError: the location cannot be used, or the ``minio`` library is missing.
    """

    def __init__(
        self,
        location: S3Location,
        *,
        patience: Patience | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        try:
            from lazyfs.publish.s3_client import S3Client
        except ModuleNotFoundError as exc:
            raise ConfigError(
                f"publishing to S3 needs the Python package {exc.name!r}",
                hint="pip install 'lazyfs[s3]'",
            ) from exc
        self.location = location
        self._patience = patience or Patience()
        self._client = S3Client(location, self._patience, environ)

    @property
    def name(self) -> str:
        """The location, without options."""
        return str(self.location)

    def prepare(self) -> None:
        """Return if the bucket is there, can be written, and honours conditions.

        Raises:
            PublishError: it is not so.
        """
        self._client.check_bucket()
        path = _PROBE + secrets.token_hex(8)
        first = self.replace_if(path, b"1", None)
        try:
            if first is None:
                raise unconditional(self.name)
            for content, version in ((b"2", None), (b"3", "0" * 32)):
                if self.replace_if(path, content, version) is not None:
                    raise unconditional(self.name)
            if self.replace_if(path, b"4", first) is None:
                raise unconditional(self.name)
        finally:
            self.remove([path])

    # --- objects -----------------------------------------------------------------------------

    def has(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        return self._client.size(self.location.key(path)) is not None

    def upload(self) -> S3Upload:
        """A new upload: nothing is sent before its end."""
        return S3Upload(self)

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver the stored bytes of one object."""

        def deliver(answer: Answer) -> bool:
            receiver.restart()
            for piece in answer.pieces:
                receiver.write(piece)
            return True

        path = ref.digest.object_path(ref.kind)
        if not self._receive(path, deliver):
            raise ObjectMissing("no such object", object=str(ref), url=f"{self.name}/{path}")
        receiver.finish()

    def objects(self) -> Iterator[StoredObject]:
        """All objects below ``data``."""
        for item in self._client.objects(self.location.key("data/")):
            yield replace(item, path=self.location.path(item.path))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects, many with one request."""
        self._client.remove(self.location.key(path) for path in paths)

    # --- documents ---------------------------------------------------------------------------

    def read(self, path: str) -> Document | None:
        """A whole document, None if there is none."""

        def collect(answer: Answer) -> Document:
            content = bytearray()
            for piece in answer.pieces:
                content += piece
                if len(content) > DOCUMENT_LIMIT:
                    raise PublishError("too large for a document", url=f"{self.name}/{path}")
            return Document(bytes(content), answer.etag)

        return self._receive(path, collect)

    def replace(self, path: str, content: bytes) -> None:
        """Put a document at ``path`` with one request."""
        key = self.location.key(path)
        self._client.put(key, BytesIO(content), len(content), served_as(path), whole=True)

    def replace_if(self, path: str, content: bytes, version: str | None) -> str | None:
        """As `replace`, if the document is still what the caller knows.

        A request that got no answer may have been obeyed. The document tells.
        """
        key, form = self.location.key(path), served_as(path)
        unsettled: Unsettled | None = None
        for attempt in range(1, self._patience.attempts + 1):
            new = None
            try:
                new = self._client.put_if(key, BytesIO(content), len(content), form, version)
            except Unsettled as exc:
                unsettled = exc
            if new is not None or unsettled is None:
                return new
            there = self.read(path)
            if there is not None and there.content == content:
                return there.version
            if (there and there.version) != version:
                return None
            time.sleep(self._patience.pause(attempt))
        assert unsettled is not None
        raise unsettled.error

    # -----------------------------------------------------------------------------------------

    def put_object(self, path: str, content: tempfile.SpooledTemporaryFile[bytes]) -> bool:
        """Upload an object unless there is one; whether this one is new."""
        key, form, size = self.location.key(path), served_as(path), content.tell()
        if size > ONE_REQUEST_SIZE:
            if self._client.size(key) is not None:
                return False
        else:
            content.seek(0)
            try:
                return self._client.put_if(key, content, size, form, None) is not None
            except Unsettled:
                # The same object may be written again.
                pass
        self._client.put(key, content, size, form)
        return True

    def overwrite_object(self, path: str, content: tempfile.SpooledTemporaryFile[bytes]) -> None:
        """Upload an object in the place of a damaged one."""
        self._client.put(self.location.key(path), content, content.tell(), served_as(path))

    def _receive(self, path: str, take: Callable[[Answer], T]) -> T | None:
        """What ``take`` makes of an object; None if there is none. Repeats what was cut short."""
        key = self.location.key(path)
        for attempt in itertools.count(1):
            try:
                with self._client.get(key) as answer:
                    return take(answer) if answer is not None else None
            except NetworkError as exc:
                if attempt >= self._patience.attempts:
                    raise unreachable(exc.message, place=self.name, key=key) from exc
            time.sleep(self._patience.pause(attempt))
        raise AssertionError("not reached")


class S3Upload:
    """One object on its way into a bucket, kept here until its name is known.

    Args:
        target: Where it goes.
    """

    def __init__(self, target: S3Target) -> None:
        self._target = target
        self._file: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - `discard` closes it
            max_size=SPOOL_SIZE, prefix="lazyfs-upload-"
        )

    def write(self, data: bytes) -> None:
        """Append stored bytes."""
        try:
            self._file.write(data)
        except OSError as exc:
            raise PublishError(
                f"cannot write a temporary file: {exc.strerror}",
                path=tempfile.gettempdir(),
                hint="make room there, or set TMPDIR; " + KEPT,
            ) from exc

    def commit(self, path: str, *, replace: bool = False) -> bool:
        """Make it visible at ``path``; False if an object was there already and stays."""
        try:
            if replace:
                self._target.overwrite_object(path, self._file)
                return True
            return self._target.put_object(path, self._file)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget it."""
        self._file.close()
