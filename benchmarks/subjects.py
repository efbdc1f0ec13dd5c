"""What the workloads run on: the local disk, a lazyfs mount, a cvmfs2 mount."""

from __future__ import annotations

import abc
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.corpus import FQRN, Corpus

READY_SECONDS = 60.0
END_SECONDS = 60.0
_POLL_SECONDS = 0.002


class Subject(abc.ABC):
    """Something that shows the files below `root`."""

    name: str
    has_cache = True

    def __init__(self, root: Path) -> None:
        self.root = root

    @abc.abstractmethod
    def start(self, url: str) -> float:
        """Show the files; the seconds until they can be used."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End what `start` began."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Empty the cache."""

    def peak_bytes(self) -> int | None:
        """Most memory that it used since `start`; None where that has no meaning."""
        return None


class LocalDisk(Subject):
    """The files themselves."""

    name = "local"
    has_cache = False

    def start(self, url: str) -> float:
        """Nothing to do."""
        return 0.0

    def stop(self) -> None:
        """Nothing to do."""

    def forget(self) -> None:
        """Nothing to do."""


class Mounted(Subject):
    """A process that serves a mount and stays in the foreground."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        super().__init__(folder / "mnt")
        self.root.mkdir(parents=True)
        self.folder = folder
        self.cache = folder / "cache"
        self.corpus = corpus
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self, url: str) -> list[str]:
        """What to run."""

    def start(self, url: str) -> float:
        """Mount, and wait until the root can be looked at."""
        self.cache.mkdir(exist_ok=True)
        device = self.root.stat().st_dev
        with (self.folder / "log").open("ab") as log:
            start = time.perf_counter()
            self._process = subprocess.Popen(
                self.command(url), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            while self.root.stat().st_dev == device:
                seconds = time.perf_counter() - start
                if self._process.poll() is not None or seconds > READY_SECONDS:
                    self.stop()
                    log_text = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"{self.name} does not mount:\n{log_text[-2000:]}")
                time.sleep(_POLL_SECONDS)
            next(self.root.iterdir())
        return time.perf_counter() - start

    def stop(self) -> None:
        """Unmount and wait for the process."""
        process, self._process = self._process, None
        if process is None:
            return
        subprocess.run(["umount", self.root], check=False, capture_output=True)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            subprocess.run(["umount", "-l", self.root], check=False)

    def forget(self) -> None:
        """Empty the cache."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def peak_bytes(self) -> int | None:
        """The kernel's high-water mark of resident memory."""
        if self._process is None:
            return None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else None


class Lazyfs(Mounted):
    """This package."""

    name = "lazyfs"

    def command(self, url: str) -> list[str]:
        """``lazyfs mount``."""
        return [
            sys.executable, "-m", "lazyfs.cli.main", "mount", "--foreground",
            "--pubkey", str(self.corpus.pubkey), "--cache", str(self.cache),
            f"{url}/{FQRN}", str(self.root),
        ]  # fmt: skip


class Cvmfs2(Mounted):
    """The reference client.

    Args:
        binary: Its executable.
        folder: Where its cache and configuration go.
        corpus: What is mounted.
    """

    name = "cvmfs2"

    def __init__(self, binary: str, folder: Path, corpus: Corpus) -> None:
        super().__init__(folder, corpus)
        self._binary = binary

    def command(self, url: str) -> list[str]:
        """``cvmfs2 -f`` with a configuration of its own."""
        config = self.folder / "config"
        config.write_text(
            f"CVMFS_SERVER_URL={url}/{FQRN}\n"
            "CVMFS_HTTP_PROXY=DIRECT\n"
            f"CVMFS_PUBLIC_KEY={self.corpus.pubkey}\n"
            f"CVMFS_CACHE_BASE={self.cache}\n"
            f"CVMFS_RELOAD_SOCKETS={self.cache}\n"
            "CVMFS_SHARED_CACHE=no\n"
            "CVMFS_QUOTA_LIMIT=4000\n"
            f"CVMFS_USYSLOG={self.folder}/usyslog\n"
        )
        options = f"config={config},disable_watchdog"
        return [self._binary, "-f", "-o", options, FQRN, str(self.root)]
