"""The table, the JSON and the facts about the machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.corpus import Size
from benchmarks.measure import COLD, DISK_WARM, MOUNT, PAGE_WARM, SLOW, Link, Sample

MARKS = ("<!-- results -->", "<!-- end of results -->")
"""What is between these lines of the README is replaced."""

_TITLES = {
    MOUNT: "mount",
    "walk": "walk of {entries:,} entries",
    "small": "read {small_files:,} small files",
    "large": "read {large_mib} MiB in sequence",
    "program": "start a program, {modules} imports",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """All samples of one run, and where they come from."""

    samples: tuple[Sample, ...]
    size: Size
    link: Link
    modules: int
    facts: dict[str, Any]

    def find(self, workload: str, subject: str, state: str) -> Sample | None:
        """One sample, if it was measured."""
        wanted = (workload, subject, state)
        return next((s for s in self.samples if (s.workload, s.subject, s.state) == wanted), None)

    @property
    def clients(self) -> list[str]:
        """Subjects that mount."""
        return list(dict.fromkeys(s.subject for s in self.samples if s.subject != "local"))

    def peak_bytes(self, subject: str) -> int:
        """Most memory that a mount used in the whole run."""
        return max(s.peak_bytes or 0 for s in self.samples if s.subject == subject)

    def to_json(self) -> str:
        """Everything, for scripts."""
        document = {
            "facts": self.facts,
            "size": dataclasses.asdict(self.size),
            "link": dataclasses.asdict(self.link),
            "peak_bytes": {name: self.peak_bytes(name) for name in self.clients},
            "samples": [
                {**dataclasses.asdict(s), "median": s.median, "ratio": self._ratio(s)}
                for s in self.samples
            ],
        }
        return json.dumps(document, indent=1) + "\n"

    def _ratio(self, sample: Sample) -> float | None:
        """Times the local file system's time, in the same state of the kernel's caches."""
        state = PAGE_WARM if sample.state == PAGE_WARM else DISK_WARM
        local = self.find(sample.workload, "local", state)
        return sample.median / local.median if local else None

    def to_markdown(self) -> str:
        """The table, for people."""
        return "\n\n".join((self._facts(), self._times(), self._traffic(), self._memory())) + "\n"

    def _facts(self) -> str:
        facts = self.facts
        return (
            f"{facts['date']}, {facts['cpus']} x {facts['cpu']}, {facts['memory_gib']} GiB, "
            f"Linux {facts['kernel']}, Python {facts['python']}, lazyfs {facts['lazyfs']}; "
            f"median of {facts['repeat']}. In brackets: times the local file system's time."
        )

    def _times(self) -> str:
        columns = ["local, caches dropped", "local, page-warm"]
        columns += [f"{c}, {s}" for c in self.clients for s in (COLD, DISK_WARM, PAGE_WARM)]
        lines = [_row(["", *columns]), _row(["---", *["---:"] * len(columns)])]
        for workload, title in _TITLES.items():
            cells = [self._cell(workload, "local", s) for s in (DISK_WARM, PAGE_WARM)]
            cells += [
                self._cell(workload, c, s)
                for c in self.clients
                for s in (COLD, DISK_WARM, PAGE_WARM)
            ]
            lines.append(_row([self._title(title), *cells]))
        return "\n".join(lines)

    def _cell(self, workload: str, subject: str, state: str) -> str:
        sample = self.find(workload, subject, state)
        if sample is None:
            return ""
        ratio = self._ratio(sample) if subject != "local" else None
        return _seconds(sample.median) + (f" ({ratio:.1f})" if ratio is not None else "")

    def _traffic(self) -> str:
        columns = [f"{c}: {what}" for c in self.clients for what in ("time", "requests", "MB")]
        link = (
            f"Slow link: {self.link.delay * 1000:.0f} ms added to each request, "
            f"{self.link.bandwidth * 8 / 1e6:.0f} Mbit/s, empty cache, measured once."
        )
        lines = [link, "", _row(["", *columns]), _row(["---", *["---:"] * len(columns)])]
        for workload, title in _TITLES.items():
            cells = []
            for client in self.clients:
                sample = self.find(workload, client, SLOW)
                if sample is not None:
                    megabytes = f"{sample.bytes / 1e6:.1f}"
                    cells += [_seconds(sample.median), str(sample.requests), megabytes]
            if cells:
                lines.append(_row([self._title(title), *cells]))
        return "\n".join(lines)

    def _memory(self) -> str:
        peaks = (f"{name} {self.peak_bytes(name) / 1e6:.0f} MB" for name in self.clients)
        return f"Peak resident memory of the mount over all of this: {', '.join(peaks)}."

    def _title(self, template: str) -> str:
        return template.format(
            entries=self.size.entries,
            small_files=self.size.small_files,
            large_mib=self.size.large_bytes >> 20,
            modules=self.modules,
        )


def machine_facts(repeat: int) -> dict[str, Any]:
    """What the numbers depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "lazyfs": version("lazyfs"),
        "repeat": repeat,
    }


def record(readme: Path, report: Report) -> None:
    """Put the table into the README, in the place of the one before."""
    replace_section(readme, MARKS, report.to_markdown())


def replace_section(readme: Path, marks: tuple[str, str], text: str) -> None:
    """Put ``text`` between two lines of a file, in the place of what is there."""
    before, rest = readme.read_text().split(marks[0])
    after = rest.split(marks[1])[1]
    readme.write_text(f"{before}{marks[0]}\n{text}{marks[1]}{after}")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
