"""One run: every workload on every subject in every state."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import Corpus
from benchmarks.subjects import Subject
from benchmarks.workloads import WORKLOADS
from lazyfs.net.static_server import StaticServer

MOUNT = "mount"
"""The workload that `Subject.start` is."""

COLD = "cold"
"""Nothing is cached anywhere."""
DISK_WARM = "disk-warm"
"""The client's cache has everything; freshly mounted, the kernel's caches are dropped."""
PAGE_WARM = "page-warm"
"""The same again at once."""
SLOW = "slow link"
"""As cold, through a delay and a bandwidth limit."""

STATES = (COLD, DISK_WARM, PAGE_WARM, SLOW)


@dataclass(frozen=True, slots=True)
class Link:
    """A slow link."""

    delay: float
    """Seconds added to each request."""
    bandwidth: float
    """Bytes per second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured of one workload, on one subject, in one state."""

    workload: str
    subject: str
    state: str
    seconds: tuple[float, ...]
    """One value per repetition."""
    requests: int = 0
    """Of the last repetition."""
    bytes: int = 0
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """The median of the repetitions."""
        return statistics.median(self.seconds)


class Bench:
    """Measures.

    Args:
        corpus: The files.
        repeat: How often each is done.
        say: Told what is being measured.
    """

    def __init__(self, corpus: Corpus, *, repeat: int, say: Callable[[str], None]) -> None:
        self._corpus = corpus
        self._repeat = repeat
        self._say = say

    def run(self, subjects: Iterable[Subject], link: Link) -> Iterator[Sample]:
        """Measure everything; a sample as soon as it is there."""
        subjects = list(subjects)
        for workload in WORKLOADS:
            for subject in subjects:
                yield from self._usual(workload, subject)
                if subject.has_cache:
                    yield from self._slow(workload, subject, link)
        for subject in subjects:
            if subject.has_cache:
                yield from self._mounting(subject)

    def _usual(self, workload: str, subject: Subject) -> Iterator[Sample]:
        """Repetitions take turns through the states, so that a slow minute hits them all."""
        times: dict[str, list[float]] = {COLD: [], DISK_WARM: [], PAGE_WARM: []}
        last: dict[str, Sample] = {}
        with StaticServer(self._corpus.served) as server:
            for _ in range(self._repeat):
                subject.forget()
                for state in (COLD, DISK_WARM):
                    with self._started(subject, server):
                        last[state] = self._once(workload, subject, state, server)
                        times[state].append(last[state].median)
                        if state == DISK_WARM:
                            last[PAGE_WARM] = self._once(workload, subject, PAGE_WARM, server)
                            times[PAGE_WARM].append(last[PAGE_WARM].median)
        for state, sample in last.items():
            yield dataclasses.replace(sample, seconds=tuple(times[state]))

    def _slow(self, workload: str, subject: Subject, link: Link) -> Iterator[Sample]:
        subject.forget()
        with (
            StaticServer(self._corpus.served, delay=link.delay, bandwidth=link.bandwidth) as server,
            self._started(subject, server),
        ):
            yield self._once(workload, subject, SLOW, server)

    def _mounting(self, subject: Subject) -> Iterator[Sample]:
        self._say(f"{MOUNT}, {subject.name}")
        times: dict[str, list[float]] = {COLD: [], DISK_WARM: []}
        with StaticServer(self._corpus.served) as server:
            for _ in range(self._repeat):
                subject.forget()
                for values in times.values():
                    drop_kernel_caches()
                    values.append(subject.start(server.url))
                    subject.stop()
        for state, values in times.items():
            yield Sample(MOUNT, subject.name, state, tuple(values))

    @contextmanager
    def _started(self, subject: Subject, server: StaticServer) -> Iterator[None]:
        subject.start(server.url)
        try:
            drop_kernel_caches()
            yield
        finally:
            subject.stop()

    def _once(self, workload: str, subject: Subject, state: str, server: StaticServer) -> Sample:
        self._say(f"{workload}, {subject.name}, {state}")
        requests, size = server.requests, server.bytes_sent
        seconds = run_workload(workload, subject.root)
        return Sample(
            workload,
            subject.name,
            state,
            (seconds,),
            server.requests - requests,
            server.bytes_sent - size,
            subject.peak_bytes(),
        )


def run_workload(workload: str, root: Path) -> float:
    """Its seconds."""
    command = [sys.executable, "-m", "benchmarks.workloads", workload, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def drop_kernel_caches() -> None:
    """Page cache, dentries and inodes of all file systems. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
