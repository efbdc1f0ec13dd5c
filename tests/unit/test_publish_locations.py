"""What people write to say where to publish."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lazyfs.errors import ConfigError
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.locations import open_target
from lazyfs.publish.s3_exchange import Form, served_as
from lazyfs.publish.s3_location import OPTIONS, S3Location, Style, parse_s3_location
from lazyfs.publish.s3_target import S3Target

GOOD: list[tuple[str, Mapping[str, str], S3Location]] = [
    ("s3://bucket", {}, S3Location("bucket")),
    ("s3://bucket/", {}, S3Location("bucket")),
    ("s3://bucket/a/b.example.org/", {}, S3Location("bucket", "a/b.example.org")),
    ("s3://bucket/a%20b", {}, S3Location("bucket", "a b")),
    ("s3://my.bucket-1?region=eu-west-1", {}, S3Location("my.bucket-1", region="eu-west-1")),
    ("s3://bucket", {"AWS_REGION": "us-west-2"}, S3Location("bucket", region="us-west-2")),
    ("s3://bucket", {"AWS_DEFAULT_REGION": "r1"}, S3Location("bucket", region="r1")),
    (
        "s3://bucket?region=a1",
        {"AWS_REGION": "b1", "AWS_DEFAULT_REGION": "c1"},
        S3Location("bucket", region="a1"),
    ),
    (
        "s3+http://127.0.0.1:9000/bucket/x",
        {"AWS_ENDPOINT_URL": "https://other"},
        S3Location("bucket", "x", "127.0.0.1:9000", secure=False),
    ),
    ("s3+https://[::1]:9000/bucket", {}, S3Location("bucket", "", "[::1]:9000")),
    ("s3://bucket/x?endpoint=http://h:1", {}, S3Location("bucket", "x", "h:1", secure=False)),
    ("s3://bucket/x?endpoint=h:1", {}, S3Location("bucket", "x", "h:1")),
    ("s3://bucket", {"AWS_ENDPOINT_URL": "http://h/"}, S3Location("bucket", "", "h", secure=False)),
    (
        "s3://bucket",
        {"AWS_ENDPOINT_URL": "http://h", "AWS_ENDPOINT_URL_S3": "https://s3"},
        S3Location("bucket", "", "s3"),
    ),
    ("s3://bucket?style=virtual", {}, S3Location("bucket", style=Style.VIRTUAL)),
    (
        "s3://bucket?style=path&insecure=yes",
        {},
        S3Location("bucket", style=Style.PATH, insecure=True),
    ),
    ("s3://bucket?insecure=0", {}, S3Location("bucket")),
    ("s3://bucket?ca=/c.pem", {}, S3Location("bucket", ca=Path("/c.pem"))),
    ("s3://bucket", {"AWS_CA_BUNDLE": "/c.pem"}, S3Location("bucket", ca=Path("/c.pem"))),
    (
        "s3://bucket?credentials=/k&profile=me",
        {},
        S3Location("bucket", credentials=Path("/k"), profile="me"),
    ),
]


@pytest.mark.parametrize(("text", "environ", "expected"), GOOD, ids=[text for text, *_ in GOOD])
def test_locations_are_understood(
    text: str, environ: Mapping[str, str], expected: S3Location
) -> None:
    assert parse_s3_location(text, environ) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://", "name of a bucket"),
        ("s3:///x", "name of a bucket"),
        ("s3://Bucket", "name of a bucket"),
        ("s3://ab", "name of a bucket"),
        ("s3+http://host:9000", "name of a bucket"),
        ("s3+http:///bucket", "a server"),
        ("s3+http://ho_st/bucket", "a server"),
        ("s3+http://host:port/bucket", "a server"),
        ("s3+http://[::1/bucket", "not a location"),
        ("s3://bucket/a//b", "a prefix"),
        ("s3://bucket/a/../b", "a prefix"),
        ("s3://bucket/%2e%2e", "a prefix"),
        ("s3://bucket?reigon=x", "unknown option 'reigon'; there are endpoint, region"),
        ("s3://bucket?region", "not a location"),
        ("s3://bucket?region=EU!", "a region"),
        ("s3://bucket?style=other", "style is auto, path or virtual"),
        ("s3://bucket?insecure=maybe", "insecure is yes or no"),
        ("s3://bucket#x", "'#'"),
        ("s3://bucket?endpoint=ftp://x", "URL of a server"),
        ("s3://bucket?endpoint=http://x/path", "URL of a server"),
        ("s3+http://host/bucket?endpoint=http://other", "two servers"),
    ],
)
def test_locations_that_cannot_be_used_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_s3_location(text, {})


@pytest.mark.parametrize("text", ["s3+http://key:secret@host/bucket", "s3://key:secret@bucket/x"])
def test_secrets_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match=r"do not belong.*AWS_ACCESS_KEY_ID") as caught:
        parse_s3_location(text, {})
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/x?region=r1&credentials=/k", "s3://bucket/x"),
        ("s3+http://host:1/bucket/x/?style=path", "s3+http://host:1/bucket/x"),
        ("s3://bucket?endpoint=https://host", "s3+https://host/bucket"),
    ],
)
def test_the_name_of_a_location_can_be_used_again(text: str, name: str) -> None:
    assert str(parse_s3_location(text, {})) == name
    assert str(parse_s3_location(name, {})) == name


def test_keys_stand_below_the_prefix() -> None:
    for location, key in ((S3Location("b", "x/y"), "x/y/data/z"), (S3Location("b"), "data/z")):
        assert location.key("data/z") == key
        assert location.path(key) == "data/z"
    assert S3Location("b", "x", "h:1", secure=False).url == "http://h:1/b/x"


def test_folders_and_stores_are_told_apart(tmp_path: Path) -> None:
    folder = open_target(str(tmp_path / "s3:" / "x"))
    assert isinstance(folder, DirectoryTarget)
    assert folder.root == tmp_path / "s3:" / "x"
    store = open_target("s3+http://127.0.0.1:1/bucket/x?credentials=/k")
    assert isinstance(store, S3Target)
    assert store.name == "s3+http://127.0.0.1:1/bucket/x"


@pytest.mark.parametrize("text", ["http://host/x", "S3://bucket", "gs://bucket", "://x"])
def test_other_places_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot publish to .*s3://BUCKET"):
        open_target(text)


def test_what_the_library_refuses_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="port"):
        open_target("s3+http://host:99999/bucket")


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['minio'] = None\n"
        "from lazyfs.errors import ConfigError\n"
        "from lazyfs.publish.locations import open_target\n"
        "open_target('/a/folder')\n"
        "try: open_target('s3://bucket')\n"
        "except ConfigError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "'minio': pip install 'lazyfs[s3]'" in done.stdout


def test_documents_are_short_lived_and_objects_are_not() -> None:
    assert served_as(".cvmfspublished") == Form("application/x-cvmfs", "max-age=61")
    assert served_as(".cvmfs_last_snapshot") == Form("application/x-cvmfs", "max-age=61")
    assert served_as(".cvmfs_status.json") == Form("application/json", "max-age=61")
    assert served_as(".cvmfsalt-0123C") == Form("application/x-cvmfs", "max-age=259200")
    assert served_as("data/ab/cdef-shake128P") == Form()
    assert served_as("data/txn/lease").cache_control == "no-store"


def test_every_option_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "publish-to-s3.md"
    text = page.read_text()
    assert [option for option in OPTIONS if f"`{option}=" not in text] == []
