"""Going to the background, and telling the parent when the mount answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from lazyfs.errors import LazyfsError, MountError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child tells its parent."""

    message: str = ""
    """Empty: the mount answers."""
    exit_code: int = 0


Report = Callable[[Outcome], None]
"""Tells the outcome to whoever waits for it; only the first one counts."""


def run_in_background(serve: Callable[[Report], int], *, errors: Path | None = None) -> Outcome:
    """Run ``serve`` in a process of its own session; what it reports first.

    Args:
        serve: Gets a function that reports; its result is the exit code of the process. It must
            do all its work after the fork: neither threads nor trio survive one, nor do open
            files but the standard streams. If nobody waits for the report any more, reporting
            raises `MountError`.
        errors: Gets what is written to standard error after the report; None: nothing does.

    Raises:
        MountError: the process ended without a report.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        # The second fork: a session leader could take a terminal, and init reaps an orphan.
        if os.fork() == 0:
            _serve(serve, os.fdopen(writer, "wb"), errors)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        os.waitpid(child, 0)
        return _read_outcome(pipe)


def _serve(serve: Callable[[Report], int], pipe: BinaryIO, errors: Path | None) -> None:
    """Run ``serve`` and end the process; nothing of the parent's stack may run again."""

    def report(outcome: Outcome) -> None:
        if pipe.closed:
            return
        try:
            # Standard error is left last: whoever reads it to the end has then seen all of it.
            with pipe:
                pipe.write(json.dumps(asdict(outcome)).encode())
        except BrokenPipeError:
            raise MountError("whoever asked for the mount has gone away") from None
        _detach_standard_streams(errors)

    code = 1
    _close_inherited(pipe.fileno())
    try:
        # No other file system is kept busy by a mount.
        os.chdir("/")
        code = serve(report)
    except LazyfsError as exc:
        code = exc.exit_code
        report(Outcome(str(exc), code))
    except BaseException as exc:
        report(Outcome(f"unexpected failure: {exc!r}", code))
        raise
    finally:
        os._exit(code)


def _close_inherited(keep: int) -> None:
    """Close what the caller had open: its locks, pipes and mounts are not for a mount to hold."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _detach_standard_streams(errors: Path | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    if errors is not None:
        fd = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(fd, 2)
        os.close(fd)


def _read_outcome(pipe: BinaryIO) -> Outcome:
    content = pipe.read()
    try:
        return Outcome(**json.loads(content))
    except (ValueError, TypeError):
        raise MountError(
            "the mount process ended before the mount answered",
            hint="try --foreground, it shows more",
        ) from None
