"""`S3Client`: the few requests that a target needs, by way of the ``minio`` library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, BinaryIO, cast
from xml.etree import ElementTree as ET

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.sse import Sse

from lazyfs.errors import ConfigError, NetworkError, PublishError
from lazyfs.net.patient_pool import Patience, PatientPool
from lazyfs.publish.s3_credentials import FirstFound
from lazyfs.publish.s3_errors import KEPT, explain, printable, unreachable
from lazyfs.publish.s3_exchange import MAX_PARTS, PART_SIZE, WHOLE_SIZE, Answer, Form, Unsettled
from lazyfs.publish.s3_location import S3Location, Style
from lazyfs.publish.target import StoredObject

PARALLEL_PARTS = 3

_BATCH = 1000
"""Keys that one request may delete."""

_UPLOADS = 2
"""A server may answer the end of an upload in parts with "200 OK" and an error in the body."""

_MISSING = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound"})
_CHANGED = frozenset({"PreconditionFailed"})
_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_UNREADABLE = (MinioException, ET.ParseError, ValueError, AttributeError, TypeError, KeyError)
"""What the library makes of answers that are no S3."""


class S3Client:
    """Speaks to one bucket. Safe to use from many threads.

    Methods raise `PublishError`; what can be repeated is repeated.

    Args:
        location: The bucket.
        patience: How long to wait, and how often to try.
        environ: Where credentials may be.

    Raises:
        ConfigError: the location cannot be used.
    """

    def __init__(
        self, location: S3Location, patience: Patience, environ: Mapping[str, str]
    ) -> None:
        self._bucket = location.bucket
        self._place = str(location)
        if location.ca is not None and not location.ca.is_file():
            raise ConfigError("no such file", path=str(location.ca))
        self._pool = PatientPool(patience, ca=location.ca, insecure=location.insecure)
        try:
            self._client = Minio(
                location.endpoint,
                secure=location.secure,
                region=location.region,
                credentials=FirstFound(location, environ),
                http_client=self._pool,
            )
        except ValueError as exc:
            raise ConfigError(str(exc), url=self._place) from exc
        if location.style is Style.VIRTUAL:
            self._client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        elif location.style is Style.PATH:
            self._client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    def check_bucket(self) -> None:
        """Return if the bucket is there."""
        with self._explained():
            if not self._client.bucket_exists(self._bucket):
                raise explain("NoSuchBucket", "", place=self._place, key="")

    def size(self, key: str) -> int | None:
        """Bytes of an object; None if there is none."""
        with self._explained(key):
            try:
                found = self._client.stat_object(self._bucket, key)
            except S3Error as exc:
                if exc.code in _MISSING:
                    return None
                raise
            if not found.etag:
                raise self._no_etag(key)
            return found.size or 0

    @contextlib.contextmanager
    def get(self, key: str) -> Iterator[Answer | None]:
        """An object, to be read in the ``with`` block; None if there is none. Asks once.

        Raises:
            NetworkError: the server did not answer; it may the next time.
        """
        with self._pool.streaming() as stream:
            try:
                with self._explained(key):
                    response = self._client.get_object(self._bucket, key)
            except PublishError as exc:
                if isinstance(exc.__cause__, NetworkError):
                    raise exc.__cause__ from exc
                if _code(exc) not in _MISSING:
                    raise
                yield None
                return
            try:
                etag = response.headers.get("etag", "").replace('"', "")
                if not etag:
                    raise self._no_etag(key)
                yield Answer(etag, stream.pieces(response))
            finally:
                response.close()

    def put(
        self, key: str, content: IO[bytes], size: int, form: Form, *, whole: bool = False
    ) -> None:
        """Write an object, a large one in parts that travel side by side unless ``whole``."""
        part_size = size if whole or size <= WHOLE_SIZE else max(PART_SIZE, -(-size // MAX_PARTS))
        with self._explained(key):
            for _ in range(_UPLOADS):
                content.seek(0)
                try:
                    if self._put(key, content, size, form, part_size):
                        return
                except S3Error as exc:
                    # The end of an upload in parts was asked for again: it had ended.
                    if exc.code != "NoSuchUpload":
                        raise
                    if self.size(key) == size:
                        return
        raise PublishError("the server did not end the upload", object=key, url=self._place)

    def put_if(
        self, key: str, content: IO[bytes], size: int, form: Form, etag: str | None
    ) -> str | None:
        """Write an object if it is what ``etag`` names, or if there is none; the new ETag.

        Returns:
            None if it is something else by now.

        Raises:
            Unsettled: nobody knows.
        """
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        try:
            with self._explained(key):
                written = self._put(key, content, size, form, size, condition)
        except PublishError as exc:
            code = _code(exc)
            if code in _CHANGED or (code in _MISSING and etag is not None):
                return None
            if code in _CONFLICTS or isinstance(exc.__cause__, NetworkError):
                raise Unsettled(exc) from exc
            raise
        if not written:
            raise Unsettled(self._no_etag(key))
        return written

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin with ``prefix``; their paths are keys."""
        found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
        while True:
            with self._explained():
                item = next(found, None)
                if item is None:
                    return
                modified = item.last_modified.timestamp() if item.last_modified else 0.0
                listed = StoredObject(item.object_name or "", item.size or 0, modified)
            yield listed

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects, many with one request."""
        left = iter(keys)
        while batch := list(islice(left, _BATCH)):
            objects = [DeleteObject(key) for key in batch]
            with self._explained(batch[0]):
                errors = list(self._client.remove_objects(self._bucket, objects))
            for error in errors:
                code, message = error.code or "", error.message or ""
                if code not in _MISSING:
                    raise explain(code, message, place=self._place, key=error.name or "")

    def _put(
        self,
        key: str,
        content: IO[bytes],
        size: int,
        form: Form,
        part_size: int,
        condition: dict[str, str] | None = None,
    ) -> str:
        """The ETag, empty if the server gave none."""
        written = self._client.put_object(
            self._bucket,
            key,
            cast("BinaryIO", content),
            size,
            content_type=form.content_type,
            metadata={"Cache-Control": form.cache_control},
            sse=_Condition(condition) if condition else None,
            part_size=max(part_size, PART_SIZE),
            num_parallel_uploads=PARALLEL_PARTS,
        )
        return written.etag or ""

    def _no_etag(self, key: str) -> PublishError:
        """The error for an answer that no object store gives."""
        return PublishError(
            "the server gives no ETag, by which changes are seen",
            object=key,
            url=self._place,
            hint="is this the address of an object store? does a proxy stand before it?",
        )

    @contextlib.contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """Turn what the library raises into `PublishError`."""
        try:
            yield
        except PublishError:
            raise
        except NetworkError as exc:
            raise unreachable(exc.message, place=exc.url or self._place, key=key) from exc
        except S3Error as exc:
            # An answer to HEAD has no body; MinIO gives the code in a header then.
            code = exc.response.headers.get("x-minio-error-code") or exc.code or ""
            raise explain(code, exc.message or "", place=self._place, key=key) from exc
        except OSError as exc:
            raise PublishError(
                f"cannot read what is to be uploaded: {exc.strerror}", object=key, hint=KEPT
            ) from exc
        except _UNREADABLE as exc:
            raise PublishError(
                f"the server gives answers that are not S3's: {printable(str(exc))}",
                object=key or None,
                url=self._place,
                hint="is this the address of an object store?",
            ) from exc


def _code(error: PublishError) -> str:
    """What S3 calls the error; empty if it did not come from there."""
    return (error.__cause__.code or "") if isinstance(error.__cause__, S3Error) else ""


class _Condition(Sse):
    """Headers that make a write conditional.

    ``put_object`` has no parameter for headers, but signs and sends those of an `Sse`. Refused: a
    presigned URL, whose errors would have to be read here, and which some policies forbid.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def headers(self) -> dict[str, str]:
        """The condition."""
        return self._headers

    def tls_required(self) -> bool:
        """A condition is no secret."""
        return False
