"""The steps of the demonstration, and the table at its end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.tree import build_tree
from lazyfs.cli.output import human_bytes

FQRN = "demo.example.org"
COMMAND = (sys.executable, "-m", "lazyfs.cli.main")
PROGRAM = "import json, decimal, email.message; print(json.dumps({'six times seven': 6 * 7}))"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one step cost."""

    name: str
    seconds: float
    requests: int
    bytes: int


class Demo:
    """One run in one folder."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.mountpoint = folder / "mnt"
        self.tree = folder / "tree"
        self.repository = folder / "served" / FQRN
        self.readings: list[Reading] = []
        self.mount_seconds = 0.0

    def say(self, text: str) -> None:
        """Tell what comes."""
        self.console.print(f"[bold green]▸[/] {text}", highlight=False)

    def lazyfs(self, *arguments: str) -> str:
        """Run one command, as a user would; what it printed."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.folder)}
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            sys.exit(f"lazyfs {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What the mount says of itself."""
        answer: dict[str, Any] = json.loads(
            self.lazyfs("ctl", "--json", str(self.mountpoint), "status")
        )
        return answer

    @contextlib.contextmanager
    def mounted(self, url: str) -> Iterator[None]:
        """Mount, and unmount whatever happens."""
        self.mountpoint.mkdir(exist_ok=True)
        keys = self.folder / "keys" / f"{FQRN}.pub"
        start = time.monotonic()
        self.lazyfs(
            "mount", "--pubkey", str(keys), "--cache", str(self.folder / "cache"), url,
            str(self.mountpoint),
        )  # fmt: skip
        self.mount_seconds = time.monotonic() - start
        try:
            yield
        finally:
            self.lazyfs("umount", str(self.mountpoint))

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Remember what a step cost."""
        before = self.status()
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        after = self.status()
        self.readings.append(
            Reading(
                name,
                seconds,
                after["requests"] - before["requests"],
                after["bytes_received"] - before["bytes_received"],
            )
        )

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """Serve the repository; its URL.

        By a process of its own: this one holds the interpreter's lock while a program that it
        starts is loaded from the mount, and a server in here would wait for that lock.
        """
        command = [*COMMAND, "serve", str(self.repository.parent), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                words = server.stdout.readline().split()
                if not words:
                    sys.exit("lazyfs serve did not start")
                yield f"{words[-1]}/{FQRN}"
            finally:
                server.terminate()

    def run_program(self) -> str:
        """Run the Python that lies in the repository."""
        home = self.mountpoint / "python"
        environment = {
            "PYTHONHOME": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(home / "lib"),
        }
        done = subprocess.run(
            [home / "bin" / "python3", "-S", "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode:
            sys.exit(f"the program failed: {done.stderr.strip()}")
        return done.stdout.strip()


def run_demo(folder: Path, console: Console) -> None:
    """Run all steps below ``folder``; what they start has ended afterwards."""
    demo = Demo(folder, console)
    published = publish(demo)
    demo.say("serving it over HTTP on loopback")
    with demo.served() as url:
        demo.say("mounting it: only the signed manifest, the keys' proof and one catalog come")
        with demo.mounted(url):
            at_mount = demo.status()
            read(demo)
            update(demo)
            stored = sum(p.stat().st_size for p in demo.repository.rglob("*") if p.is_file())
            show_table(demo, at_mount, published, stored)


def publish(demo: Demo) -> dict[str, Any]:
    """Make the repository and its first revision."""
    demo.say("collecting files of this machine: a Python, documentation, a large file")
    count = build_tree(demo.tree)
    demo.say(f"publishing {count} files as the signed repository {FQRN}")
    keys = str(demo.folder / "keys")
    demo.lazyfs("publish", "init", str(demo.repository), "--keys", keys)
    return publish_tree(demo)


def publish_tree(demo: Demo) -> dict[str, Any]:
    """Publish the tree as it is now."""
    keys = str(demo.folder / "keys")
    answer: dict[str, Any] = json.loads(
        demo.lazyfs(
            "publish", "sync", str(demo.repository), str(demo.tree), "--keys", keys, "--json"
        )
    )
    return answer


def read(demo: Demo) -> None:
    """List, read and run from the mount, cold and again."""
    with demo.measured("list the root"):
        names = sorted(path.name for path in demo.mountpoint.iterdir())
    demo.say(f"it looks complete: {', '.join(names)}")
    with (
        demo.measured("first byte of the large file"),
        (demo.mountpoint / "data/large.bin").open("rb") as file,
    ):
        file.read(1)
    demo.say("running the Python in the repository: it fetches the files that it opens")
    with demo.measured("run a program, cold"):
        output = demo.run_program()
    demo.say(f"it says {output}")
    with demo.measured("run it again, warm"):
        demo.run_program()
    with demo.measured("walk all names and attributes"):
        count = sum(len(files) + len(dirs) for _, dirs, files in os.walk(demo.mountpoint))
    demo.say(f"walked {count} entries without reading a file")


def update(demo: Demo) -> None:
    """Publish a second revision, which appears in the mount."""
    demo.say("publishing an update while a file is open in the mount")
    with (demo.mountpoint / "VERSION").open() as old:
        (demo.tree / "VERSION").write_text("2\n")
        publish_tree(demo)
        with demo.measured("switch to the new revision"):
            demo.lazyfs("ctl", str(demo.mountpoint), "remount")
        new = (demo.mountpoint / "VERSION").read_text().strip()
        demo.say(f"VERSION is now {new}; the file opened before still says {old.read().strip()}")


def show_table(
    demo: Demo, at_mount: dict[str, Any], published: dict[str, Any], stored: int
) -> None:
    """Print what it came to; every number was measured in this run."""
    content = published["file_bytes"]
    table = Table(title="What was fetched, and when")
    for name in ("step", "time", "requests", "bytes", "share"):
        table.add_column(name, justify="left" if name == "step" else "right")
    mount = Reading("mount", demo.mount_seconds, at_mount["requests"], at_mount["bytes_received"])
    for reading in (mount, *demo.readings):
        table.add_row(
            reading.name,
            f"{reading.seconds * 1000:.0f} ms",
            str(reading.requests),
            human_bytes(reading.bytes),
            f"{100 * reading.bytes / stored:.2f} %",
        )
    total = demo.status()
    table.add_section()
    table.add_row(
        "in all",
        "",
        str(total["requests"]),
        human_bytes(total["bytes_received"]),
        f"{100 * total['bytes_received'] / stored:.2f} %",
    )
    demo.console.print(table)
    demo.console.print(
        f"The repository holds {published['files']} files, {human_bytes(content)} of content,"
        f" {human_bytes(stored)} as stored; shares are of the stored bytes.",
        highlight=False,
    )
