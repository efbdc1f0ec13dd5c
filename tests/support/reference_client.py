"""The reference client ``cvmfs2`` and its repository checker, where the environment names them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.waiting import wait_until

END_SECONDS = 30.0
"""``cvmfs2`` ends at once when it is unmounted, but a loaded machine needs a few seconds."""


@dataclass(frozen=True, slots=True)
class ReferenceMount:
    """One repository mounted by ``cvmfs2``."""

    path: Path
    """The mount point."""
    fqrn: str
    cache: Path

    def talk(self, command: str) -> str:
        """What the client answers to a line on its ``cvmfs_talk`` socket."""
        (path,) = self.cache.rglob(f"cvmfs_io.{self.fqrn}")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(END_SECONDS)
            sock.connect(str(path))
            sock.sendall(command.encode())
            return b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode()


@contextlib.contextmanager
def reference_mount(
    url: str, fqrn: str, pubkey: Path, parameters: Mapping[str, str] | None = None
) -> Iterator[ReferenceMount]:
    """A repository mounted by ``cvmfs2``; skips the test where there is none.

    Args:
        url: Of the repository.
        fqrn: Its name.
        pubkey: Its master key.
        parameters: More ``CVMFS_`` parameters.
    """
    binary = reference_client()
    # Not below the test's own folder: the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="cvmfs2-"))
    root, cache, output = folder / "mnt", folder / "cache", folder / "output"
    root.mkdir()
    cache.mkdir()
    settings = {
        "CVMFS_SERVER_URL": url,
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PUBLIC_KEY": str(pubkey),
        "CVMFS_CACHE_BASE": str(cache),
        "CVMFS_RELOAD_SOCKETS": str(cache),
        "CVMFS_SHARED_CACHE": "no",
        "CVMFS_USYSLOG": str(folder / "log"),
        # It sets this itself where it reads its files below /etc/cvmfs.
        "CVMFS_FQRN": fqrn,
        **(parameters or {}),
    }
    config = folder / "config"
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    command = [binary, "-f", "-o", f"config={config},disable_watchdog", fqrn, str(root)]
    with (
        output.open("wb") as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(lambda: root.is_mount() or process.poll() is not None)
            assert process.poll() is None, f"cvmfs2 ended: {output.read_text(errors='replace')}"
            yield ReferenceMount(root, fqrn, cache)
        finally:
            subprocess.run(["umount", "-l", root], check=False, capture_output=True)
            _end(process)
            shutil.rmtree(folder)


def reference_client() -> str:
    """The path of ``cvmfs2``; skips the test where there is none, or it cannot run."""
    binary = os.environ.get("LAZYFS_CVMFS2")
    if not binary:
        pytest.skip("LAZYFS_CVMFS2 does not name a cvmfs2")
    if os.geteuid() != 0:
        pytest.skip("cvmfs2 needs root")
    return binary


def check_repository(where: str, temporary: Path, *options: str | Path) -> str:
    """What ``cvmfs_swissknife check`` finds wrong, empty if nothing; skips the test without it.

    Args:
        where: The repository's folder or URL.
        temporary: A folder for catalogs that are being looked at.
        options: More of its options.
    """
    command = [_swissknife(), "check", "-c", "-r", where, "-t", temporary, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # It tells of some things without failing because of them.
    return done.stderr or (f"exit code {done.returncode}" if done.returncode else "")


def _swissknife() -> str:
    named = os.environ.get("LAZYFS_CVMFS_SWISSKNIFE")
    if named:
        return named
    client = os.environ.get("LAZYFS_CVMFS2")
    beside = Path(client).with_name("cvmfs_swissknife") if client else None
    if beside is None or not beside.exists():
        pytest.skip("neither LAZYFS_CVMFS_SWISSKNIFE nor LAZYFS_CVMFS2 leads to a cvmfs_swissknife")
    return str(beside)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
