"""What is measured: run as ``python -m benchmarks.workloads NAME ROOT``, prints seconds.

Each runs in a process of its own, so that nothing that an earlier one held open or remembered
counts, and times itself, so that starting Python does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MODULES = (
    "argparse", "ast", "asyncio", "base64", "bz2", "calendar", "concurrent.futures", "configparser",
    "csv", "ctypes", "curses", "dataclasses", "datetime", "decimal", "difflib", "email.message",
    "email.parser", "fractions", "ftplib", "getpass", "gzip", "hashlib", "html.parser",
    "http.client", "http.server", "imaplib", "importlib.metadata", "inspect", "ipaddress", "json",
    "logging.config", "lzma", "mailbox", "mimetypes", "multiprocessing.pool", "optparse", "pathlib",
    "pdb", "pickle", "platform", "plistlib", "poplib", "pprint", "profile", "pydoc", "queue",
    "random", "sched", "secrets", "shelve", "shutil", "smtplib", "socketserver", "sqlite3", "ssl",
    "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "timeit", "tokenize",
    "tomllib", "trace", "tracemalloc", "turtledemo", "typing", "unittest.mock", "urllib.request",
    "uuid", "wave", "webbrowser", "xml.dom.minidom", "xml.etree.ElementTree", "xmlrpc.client",
    "zipfile", "zoneinfo",
)  # fmt: skip

_PIECE = 1 << 20


def walk(root: Path) -> None:
    """Look at the metadata of every entry, as ``find -ls`` does."""
    pending = [root / "walk"]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))


def small(root: Path) -> None:
    """Read every small file, one after the other."""
    for folder, _, names in os.walk(root / "small"):
        for name in names:
            (Path(folder) / name).read_bytes()


def large(root: Path) -> None:
    """Read one large file from its beginning to its end, 1 MiB at a time."""
    with (root / "large" / "large.bin").open("rb", buffering=0) as file:
        while file.read(_PIECE):
            pass


def program(root: Path) -> None:
    """Run a Python that lies there, and let it import most of its library."""
    home = root / "program"
    environment = {
        "PYTHONHOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": str(home / "lib"),
        "PATH": "/usr/bin:/bin",
    }
    script = "".join(
        f"try: import {name}\nexcept ImportError: pass\n" for name in MODULES
    )  # a library that the machine lacks is lacking for every subject
    subprocess.run(
        [home / "bin" / "python3", "-c", script],
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


WORKLOADS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (walk, small, large, program)
}


def main() -> None:
    """Run one and print how long it took."""
    name, root = sys.argv[1:]
    start = time.perf_counter()
    WORKLOADS[name](Path(root))
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
