"""Folders as servers: ``file://`` base URLs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.receivers import Received

from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import AllMirrorsFailed, FormatError, HashMismatch, ObjectMissing
from lazyfs.net.downloader import Downloader

CONTENT = bytes(range(256)) * 2000
PATH = "data/ab/cdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "with space"
    (folder / "data" / "ab").mkdir(parents=True)
    (folder / PATH).write_bytes(CONTENT)
    return folder


def downloader(*folders: Path, proxies: str = "DIRECT") -> Downloader:
    servers = tuple(folder.as_uri() for folder in folders)
    return Downloader(NetworkSettings(servers=servers, proxies=proxies, backoff_init=0))


def test_a_file_arrives_whole(root: Path) -> None:
    receiver = Received(CONTENT)
    with downloader(root) as local:
        local.fetch(PATH, receiver)
        assert local.status().counters.bytes_received == len(CONTENT)
    assert receiver.finished
    assert receiver.data == CONTENT


def test_a_range_is_cut_out(root: Path) -> None:
    receiver = Received(CONTENT[1000:301000])
    with downloader(root) as local:
        local.fetch(PATH, receiver, byte_range=(1000, 300000))
    assert receiver.data == CONTENT[1000:301000]


@pytest.mark.parametrize("path", ["data/00/none", f"{PATH}/below/a/file"])
def test_no_such_file_is_missing(path: str, root: Path) -> None:
    with downloader(root) as local, pytest.raises(ObjectMissing):
        local.fetch(path, Received(b""))


def test_names_are_escaped_and_come_back(root: Path) -> None:
    name = "50%#?\N{GREEK SMALL LETTER MU}" + os.fsdecode(b"\xff")
    (root / name).write_bytes(CONTENT)
    receiver = Received(CONTENT)
    with downloader(root) as local:
        local.fetch(name, receiver)
    assert receiver.data == CONTENT


def test_a_damaged_file_is_found_elsewhere(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "data" / "ab").mkdir(parents=True)
    (other / PATH).write_bytes(CONTENT[:-1] + b"?")
    with downloader(other) as local, pytest.raises(HashMismatch):
        local.fetch(PATH, Received(CONTENT))
    receiver = Received(CONTENT)
    with downloader(other, root) as local:
        local.fetch(PATH, receiver)
    assert receiver.data == CONTENT


def test_a_fifo_does_not_hang_us(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with downloader(root) as local, pytest.raises(AllMirrorsFailed, match="regular"):
        local.fetch("fifo", Received(b""))


def test_a_folder_is_no_object(root: Path) -> None:
    with downloader(root) as local, pytest.raises(AllMirrorsFailed):
        local.fetch("data", Received(b""))


def test_a_document_is_limited(root: Path) -> None:
    with downloader(root) as local, pytest.raises(FormatError):
        local.fetch_document(PATH, limit=1000)


def test_no_proxy_stands_before_a_folder(root: Path) -> None:
    receiver = Received(CONTENT)
    with downloader(root, proxies="http://127.0.0.1:9") as local:
        local.fetch(PATH, receiver)
    assert receiver.finished
