"""What the page about object stores tells to do, and the policies that it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from support.commands import invoke, invoke_ok
from support.publishing import write_tree
from support.s3_server import ACCESS, SECRET, S3Server, public_read

from lazyfs.publish.s3_exchange import WHOLE_SIZE

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "publish-to-s3.md"
FQRN = "my.example.org"


def policies(bucket: str) -> list[dict[str, Any]]:
    """The policies of the page, for another bucket than its ``cvmfs``."""
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [json.loads(block.replace(":::cvmfs", f":::{bucket}")) for block in blocks]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def publish(server: S3Server, bucket: str, tmp_path: Path) -> str:
    """Make a repository and fill it; the address for readers."""
    place = f"s3+http://{server.endpoint}/{bucket}/{FQRN}"
    keys = str(tmp_path / "keys")
    write_tree(tmp_path / "tree", {"hello": b"hello\n", "large": bytes(WHOLE_SIZE)})
    invoke_ok("publish", "init", place, "--keys", keys)
    invoke_ok("publish", "sync", place, str(tmp_path / "tree"), "--keys", keys)
    invoke_ok("publish", "rm", place, "/large", "--keys", keys)
    return f"{server.url}/{bucket}/{FQRN}"


def test_the_first_steps(s3_server: S3Server, tmp_path: Path) -> None:
    url = publish(s3_server, s3_server.new_bucket(public=True), tmp_path)
    pubkey = str(tmp_path / "keys" / f"{FQRN}.pub")
    cache = str(tmp_path / "cache")
    done = invoke_ok("cat", url, "/hello", "--pubkey", pubkey, "--cache", cache)
    assert done.out == b"hello\n"
    assert "s3+http://HOST:PORT/BUCKET/PREFIX" in PAGE.read_text()


def test_the_printed_policy_for_readers_is_the_one_of_the_tests() -> None:
    _, readers = policies("some-bucket")
    assert readers == public_read("some-bucket")


@pytest.mark.parametrize("s3_server", ["minio"], indirect=True)
def test_the_printed_policy_for_publishers_is_enough(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.new_bucket(public=True)
    publishers, _ = policies(bucket)
    admin = MinioAdmin(
        endpoint=s3_server.endpoint, credentials=StaticProvider(ACCESS, SECRET), secure=False
    )
    admin.policy_add(bucket, policy=publishers)
    admin.user_add(bucket, "secret-of-a-publisher")
    admin.policy_set(bucket, user=bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-publisher")
    publish(s3_server, bucket, tmp_path)
    # And it is for that one repository.
    other = f"s3+http://{s3_server.endpoint}/{bucket}/other.example.org"
    refused = invoke("publish", "init", other, "--keys", str(tmp_path / "keys"))
    assert refused.code == 70
    assert "access denied" in refused.err
