"""Printing: JSON for scripts, text for people, progress only on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from lazyfs.repository.node import Node


def print_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=False) + "\n")


def print_line(line: str) -> None:
    """Print one line; what is no text in the locale comes out as the bytes it was."""
    try:
        raw = os.fsencode(line)
    except UnicodeEncodeError:  # a character of ours that the locale does not know
        raw = line.encode("utf-8", "surrogateescape")
    sys.stdout.flush()
    sys.stdout.buffer.write(raw + b"\n")


def print_note(line: str) -> None:
    """Print one line to standard error, as errors are printed."""
    sys.stderr.write(f"lazyfs: {line.encode('utf-8', 'backslashreplace').decode()}\n")


def show_path(path: bytes) -> str:
    """A path for people: odd characters quoted on a terminal, raw bytes in a pipe."""
    text = os.fsdecode(path or b"/")
    if sys.stdout.isatty() and not text.isprintable():
        return repr(text)
    return text


def json_path(path: bytes) -> dict[str, str]:
    """A path for scripts: text, and hex digits too where the bytes are not UTF-8."""
    return json_bytes("path", path or b"/")


def json_bytes(name: str, value: bytes) -> dict[str, str]:
    """The fields for bytes that are text as a rule: ``name``, else ``name_hex`` too."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {name: value.decode(errors="replace"), f"{name}_hex": value.hex()}


_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def node_facts(node: Node) -> dict[str, Any]:
    """A node's metadata for scripts."""
    facts: dict[str, Any] = {
        **json_path(node.path),
        "type": _TYPES[stat.S_IFMT(node.mode)],
        "mode": f"{stat.S_IMODE(node.mode):04o}",
        "size": node.size,
        "mtime_ns": node.mtime_ns,
        "uid": node.uid,
        "gid": node.gid,
        "nlink": node.nlink,
    }
    if node.digest is not None:
        facts["hash"] = str(node.digest)
    if node.is_file:
        facts["compression"] = node.codec.name.lower()
        facts["chunked"] = node.chunked
        facts["external"] = node.external
    return facts


def stat_facts(
    node: Node, target: bytes | None, xattrs: Mapping[bytes, bytes] | None
) -> dict[str, Any]:
    """All about a node for scripts; link target and extended attributes where given."""
    facts = node_facts(node)
    if target is not None:
        facts |= json_bytes("target", target)
    if xattrs is not None:
        facts["xattrs"] = {
            name.decode(errors="backslashreplace"): value.hex() for name, value in xattrs.items()
        }
    return facts


def stat_lines(
    node: Node, target: bytes | None, xattrs: Mapping[bytes, bytes] | None
) -> Iterator[str]:
    """The same for people."""
    facts = node_facts(node)
    facts["path"] = show_path(node.path)
    facts.pop("path_hex", None)
    seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
    if target is not None:
        facts["target"] = show_path(target)
    for name, value in facts.items():
        if name == "mtime_ns":
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
            name, value = "mtime", f"{when}.{nanoseconds:09} ({value} ns)"
        yield f"{name:>12}: {value}"
    for key, content in (xattrs or {}).items():
        yield f"{'xattr':>12}: {show_path(key)} = {content!r}"


def long_line(node: Node, target: bytes | None) -> str:
    """A node as ``ls -l`` shows it."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(node.mtime_ns // 1_000_000_000))
    name = show_path(node.name or b"/")
    arrow = f" -> {show_path(target)}" if target is not None else ""
    return (
        f"{stat.filemode(node.mode)} {node.nlink:3} {node.uid:5} {node.gid:5}"
        f" {node.size:12} {when} {name}{arrow}"
    )


def human_bytes(size: float) -> str:
    """``size`` with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


Advance = Callable[[int, int], None]
"""Called with what is done and the total (0: not known)."""


@contextlib.contextmanager
def progress_bar(title: str, *, sizes: bool = False) -> Iterator[Advance]:
    """A progress bar on standard error while it is a terminal; nothing otherwise.

    Args:
        title: What is going on.
        sizes: Bytes are counted, not things.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True) if sizes else MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
