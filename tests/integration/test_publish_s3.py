"""Publishing to S3 where it differs from a folder: how things are served, settings, reading."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.certificates import self_signed
from support.faulty_server import FaultyServer
from support.mounts import mounted
from support.publishing import FQRN, Item, write_tree
from support.s3_server import ACCESS, DOMAIN, NAMES, QUICK, SECRET, S3Server, running

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.errors import ConfigError, LazyfsError, PublishError
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.locations import open_target
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.s3_exchange import WHOLE_SIZE
from lazyfs.publish.s3_location import S3Location, parse_s3_location
from lazyfs.publish.s3_target import SPOOL_SIZE, S3Target
from lazyfs.repository.repository import Repository

SIZES = ChunkSizes(1 << 16, 1 << 17, 1 << 18)
TREE: dict[str, Item] = {
    "hello": b"hello",
    "empty": b"",
    "large": os.urandom(1 << 20),
    "deep/er/.cvmfscatalog": b"",
    "deep/er/file": b"in a nested catalog",
}


def put(target: S3Target, path: str, content: bytes) -> bool:
    upload = target.upload()
    upload.write(content)
    return upload.commit(path)


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content_type", "cache_control"),
    [
        (".cvmfspublished", "application/x-cvmfs", "max-age=61"),
        (".cvmfswhitelist", "application/x-cvmfs", "max-age=61"),
        (".cvmfs_status.json", "application/json", "max-age=61"),
        ("data/txn/lease", "application/octet-stream", "no-store"),
        ("data/ab/cdefC", "application/octet-stream", "max-age=259200"),
    ],
)
def test_headers_are_those_of_a_repository_server(
    s3_server: S3Server, path: str, content_type: str, cache_control: str
) -> None:
    bucket = s3_server.new_bucket(public=True)
    target = s3_server.target(bucket, "repo")
    if path.startswith("data/ab"):
        put(target, path, b"x")
    else:
        target.replace_if(path, b"x", None)
    with urllib.request.urlopen(f"{s3_server.url}/{bucket}/repo/{path}") as answer:
        assert answer.headers["Content-Type"] == content_type
        assert answer.headers["Cache-Control"] == cache_control
        assert "Content-Encoding" not in answer.headers
        assert answer.read() == b"x"


def test_large_objects_travel_in_parts(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    target = s3_server.target(bucket)
    content = os.urandom(WHOLE_SIZE + 5)
    assert len(content) > SPOOL_SIZE
    assert put(target, "data/ab/cd", content)
    found = s3_server.client.stat_object(bucket, "data/ab/cd")
    assert found.etag is not None
    assert found.etag.endswith("-3")
    assert found.metadata is not None
    assert found.metadata["cache-control"] == "max-age=259200"
    document = target.read("data/ab/cd")
    assert document is not None
    assert hashlib.sha256(document.content).digest() == hashlib.sha256(content).digest()


def test_a_document_is_written_with_one_request_however_large(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    target = s3_server.target(bucket)
    target.replace(".cvmfsreflog", bytes(WHOLE_SIZE + 1))
    version = target.replace_if("x", bytes(WHOLE_SIZE + 1), None)
    for name in (".cvmfsreflog", "x"):
        etag = s3_server.client.stat_object(bucket, name).etag
        assert etag == hashlib.md5(bytes(WHOLE_SIZE + 1)).hexdigest()
    assert version == etag


def test_repositories_share_a_bucket_and_do_not_see_each_other(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    one, two, root = (s3_server.target(bucket, prefix) for prefix in ("a", "data-2/a", ""))
    for number, target in enumerate((one, two, root), 1):
        target.prepare()
        target.replace(".cvmfspublished", b"%d" % number)
        put(target, f"data/00/{number}", b"x")
    for number, target in enumerate((one, two, root), 1):
        document = target.read(".cvmfspublished")
        assert document is not None
        assert document.content == b"%d" % number
        assert [item.path for item in target.objects()] == [f"data/00/{number}"]
    one.remove(["data/00/1", "data/00/2"])
    assert list(one.objects()) == []
    assert [item.path for item in two.objects()] == ["data/00/2"]


def test_the_temporary_file_of_a_large_upload_needs_room(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = s3_server.target(s3_server.new_bucket())
    monkeypatch.setattr("tempfile.tempdir", "/proc/lazyfs-has-no-room-there")
    assert put(target, "data/00/small", bytes(SPOOL_SIZE))
    upload = target.upload()
    with pytest.raises(PublishError, match=r"temporary file.*TMPDIR"):
        upload.write(bytes(SPOOL_SIZE + 1))
    upload.discard()


# --- a whole repository --------------------------------------------------------------------------


class Published:
    """A repository in a bucket that everybody may read."""

    def __init__(self, server: S3Server, tmp_path: Path) -> None:
        self.bucket = server.new_bucket(public=True)
        self.target = server.target(self.bucket, FQRN)
        keys = RepositoryKeys.generate(FQRN)
        self.pubkey = tmp_path / "key.pub"
        self.pubkey.write_bytes(keys.public_pem)
        self.publisher = Publisher(self.target, keys, FQRN, sizes=SIZES)
        self.publisher.init()
        self.source = tmp_path / "source"
        write_tree(self.source, TREE)
        self.publisher.publish(self.source)
        self.url = f"{server.url}/{self.bucket}/{FQRN}"


@pytest.fixture
def published(s3_server: S3Server, tmp_path: Path) -> Published:
    return Published(s3_server, tmp_path)


def test_a_repository_is_read_from_a_public_bucket(published: Published, tmp_path: Path) -> None:
    assert published.url == published.target.location.url
    with Repository.open(
        published.url, pubkey=published.pubkey, cache=tmp_path / "cache"
    ) as repository:
        found: dict[str, bytes] = {}
        for name in TREE:
            with repository.current.open_file(name.encode()) as file:
                found[name] = file.read()
        assert found == TREE
        (published.source / "new").write_bytes(b"new")
        published.publisher.publish(published.source, tag="v2")
    with Repository.open(
        published.url, pubkey=published.pubkey, cache=tmp_path / "cache", tag="v2"
    ) as repository:
        assert repository.current.lookup(b"/new").size == 3


def test_a_bucket_is_mounted(published: Published, tmp_path: Path) -> None:
    with mounted(published.url, pubkey=published.pubkey, cache=tmp_path / "cache") as mount:
        assert (mount.path / "large").read_bytes() == TREE["large"]
        assert (mount.path / "deep/er/file").read_bytes() == b"in a nested catalog"


def test_what_is_there_is_not_uploaded_again(published: Published) -> None:
    again = published.publisher.publish(published.source)
    assert again.revision == 2
    # Catalogs and the history are new, the content is not.
    assert again.new_bytes < 100_000


def test_a_private_bucket_is_not_read_without_credentials(
    published: Published, s3_server: S3Server, tmp_path: Path
) -> None:
    s3_server.client.delete_bucket_policy(published.bucket)
    with pytest.raises(LazyfsError):
        Repository.open(published.url, pubkey=published.pubkey, cache=tmp_path / "cache")
    # The target reads it with its own.
    root = published.publisher.ledger.head().manifest.root_catalog
    assert published.target.has(root.object_path(ObjectKind.CATALOG))


def test_a_bucket_that_vanishes_during_a_transaction_is_a_clear_error(
    published: Published, s3_server: S3Server
) -> None:
    client = s3_server.client

    def lose() -> None:
        with published.publisher.transaction() as transaction:
            for item in client.list_objects(published.bucket, recursive=True):
                client.remove_object(published.bucket, str(item.object_name))
            client.remove_bucket(published.bucket)
            transaction.remove("/hello")
            transaction.commit()

    with pytest.raises(PublishError, match=r"no such bucket.*mc mb"):
        lose()


def test_a_second_publisher_is_kept_out(published: Published) -> None:
    other = Publisher(published.target, published.publisher.ledger.keys, FQRN)
    with (
        published.publisher.transaction(),
        pytest.raises(PublishError, match="another publisher is at work"),
    ):
        other.publish(published.source)
    assert other.publish(published.source).revision == 2


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["", "&region=us-east-1", "&style=path", "&style=auto&insecure=no"]
)
def test_settings_that_change_nothing(s3_server: S3Server, options: str) -> None:
    s3_server.target(s3_server.new_bucket(), "x", options=options).prepare()


def test_a_location_is_opened_as_it_is_written(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.new_bucket()
    target = open_target(s3_server.location(bucket, "x/y"))
    target.prepare()
    assert target.name == f"s3+http://{s3_server.endpoint}/{bucket}/x/y"
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    target.replace("x", b"1")
    assert open_target(f"s3://{bucket}/x/y").read("x") == target.read("x")


CREDENTIALS: list[tuple[dict[str, str], str]] = [
    ({"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}, ""),
    ({"MINIO_ACCESS_KEY": ACCESS, "MINIO_SECRET_KEY": SECRET}, ""),
    ({"AWS_SHARED_CREDENTIALS_FILE": "FILE", "AWS_PROFILE": "mine"}, ""),
    ({"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}, "?credentials=FILE"),
    ({"AWS_SHARED_CREDENTIALS_FILE": "FILE"}, "?profile=mine"),
    ({"HOME": "FOLDER"}, ""),
    ({"AWS_EC2_METADATA_DISABLED": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "METADATA"}, ""),
]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A credentials file that is in use nowhere, on a machine without a metadata service."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    keys = f"aws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
    file.write_text(f"[default]\n{keys}[mine]\n{keys}")
    return file


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[str]:
    """Where a container finds the keys of its role."""
    (tmp_path / "role").write_text(
        json.dumps(
            {
                "AccessKeyId": ACCESS,
                "SecretAccessKey": SECRET,
                "Token": "",
                "Expiration": "2999-01-01T00:00:00Z",
            }
        )
    )
    with FaultyServer(tmp_path) as server:
        yield f"{server.url}/role"


@pytest.mark.parametrize(("environ", "options"), CREDENTIALS)
def test_credentials_are_found(
    s3_server: S3Server,
    bare: Path,
    metadata: str,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    options: str,
) -> None:
    places = {"FILE": str(bare), "FOLDER": str(bare.parents[1]), "METADATA": metadata}
    for name, value in environ.items():
        monkeypatch.setenv(name, places.get(value, value))
    text = f"s3+http://{s3_server.endpoint}/{s3_server.new_bucket()}"
    open_target(text + options.replace("FILE", str(bare))).prepare()


@pytest.mark.parametrize("content", [None, "", "[other]\n", "not an ini file", "[default]\n"])
def test_no_credentials_is_a_clear_error(
    s3_server: S3Server, bare: Path, content: str | None
) -> None:
    file = bare.with_name("given")
    if content is not None:
        file.write_text(content)
    text = f"s3+http://{s3_server.endpoint}/{s3_server.new_bucket()}"
    for target in (open_target(text), open_target(f"{text}?credentials={file}")):
        for use in (target.prepare, lambda: target.read("x"), lambda: target.has("x")):  # noqa: B023
            with pytest.raises(PublishError, match=r"no credentials.*AWS_ACCESS_KEY_ID"):
                use()


only_minio = pytest.mark.parametrize("s3_server", ["minio"], indirect=True)
"""moto checks no keys, regions and host names."""


@only_minio
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("nobody", SECRET), "does not know the access key"),
        ((ACCESS, "wrong-secret"), "does not belong to the access key"),
    ],
)
def test_wrong_keys_are_clear_errors(
    s3_server: S3Server, tmp_path: Path, keys: tuple[str, str], message: str
) -> None:
    file = tmp_path / "wrong"
    file.write_text(
        f"[default]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n"
    )
    location = replace(
        parse_s3_location(s3_server.location(s3_server.new_bucket()), {}), credentials=file
    )
    target = S3Target(location, patience=QUICK, environ={})
    for use in (
        target.prepare,
        lambda: target.read("x"),
        lambda: target.has("x"),
        lambda: target.replace("x", b""),
        lambda: target.replace_if("x", b"", None),
        lambda: list(target.objects()),
        lambda: target.remove(["x"]),
    ):
        with pytest.raises(PublishError, match=f"{message}.*check AWS_ACCESS_KEY_ID"):
            use()


@only_minio
def test_a_wrong_region_is_a_clear_error(s3_server: S3Server) -> None:
    target = s3_server.target(s3_server.new_bucket(), options="&region=eu-central-1")
    with pytest.raises(PublishError, match=r"another region.*\?region="):
        target.prepare()


@only_minio
def test_the_bucket_may_stand_in_the_host_name(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.new_bucket()
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    text = f"s3+http://{DOMAIN}:{s3_server.port}/{bucket}/x?style=virtual&region=us-east-1"
    target = S3Target(
        parse_s3_location(f"{text}&credentials={s3_server.credentials}", {}), patience=QUICK
    )
    target.prepare()
    target.replace("x", b"1")
    put(target, "data/00/x", bytes(WHOLE_SIZE + 1))
    assert set(asked) == {f"{bucket}.{DOMAIN}"}
    there = s3_server.target(bucket, "x").read("x")
    assert there is not None
    assert there.content == b"1"


def test_no_server_is_a_clear_error(s3_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    target = s3_server.target("bucket", "x", port=port)
    with pytest.raises(PublishError, match=r"cannot be reached: Connection refused.*publish again"):
        target.prepare()
    with pytest.raises(PublishError, match=r"cannot be reached: Connection refused.*publish again"):
        target.read("x")


def test_no_such_host_is_a_clear_error(s3_server: S3Server) -> None:
    location = S3Location(
        "bucket", endpoint="host.invalid", secure=False, credentials=s3_server.credentials
    )
    with pytest.raises(PublishError, match=r"cannot be reached: .*[Nn]ame"):
        S3Target(location, patience=QUICK).prepare()


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NAMES)
def tls_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = self_signed(folder)
    with running(request.param, folder / "server", certificate=certificate) as server:
        yield server


def test_publishing_over_tls(tls_server: S3Server) -> None:
    target = tls_server.target(
        tls_server.new_bucket(), "x", options=f"&ca={tls_server.certificate}"
    )
    target.prepare()
    content = os.urandom(WHOLE_SIZE + 1)
    assert put(target, "data/00/x", content)
    document = target.read("data/00/x")
    assert document is not None
    assert Algorithm.SHA1.digest(document.content) == Algorithm.SHA1.digest(content)


def test_tls_servers_are_verified(tls_server: S3Server) -> None:
    bucket = tls_server.new_bucket()
    with pytest.raises(PublishError, match="certificate verify failed"):
        tls_server.target(bucket).prepare()
    with pytest.raises(ConfigError, match="no such file"):
        tls_server.target(bucket, options="&ca=/there/is/none")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_servers_are_believed_if_that_is_asked_for(tls_server: S3Server) -> None:
    tls_server.target(tls_server.new_bucket(), options="&insecure=yes").prepare()
