"""Going to the background, and telling the parent when the mount answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from lazyfs.errors import LazyfsError, MountError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child tells its parent."""

    message: str = ""
    """Empty: the mount answers."""
    exit_code: int = 0


def run_in_background(serve: Callable[[Callable[[Outcome], None]], int]) -> Outcome:
    """Run ``serve`` in a process of its own session; what it reports first.

    Args:
        serve: Gets a function that reports; its result is the exit code of the process. It must
            do all its work after the fork: neither threads nor trio survive one.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        # The second fork: a session leader could take a terminal, and init reaps an orphan.
        if os.fork() == 0:
            _serve(serve, os.fdopen(writer, "wb"))
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return _read_outcome(pipe)


def _serve(serve: Callable[[Callable[[Outcome], None]], int], pipe: BinaryIO) -> None:
    def report(outcome: Outcome) -> None:
        if pipe.closed:
            return
        _detach_standard_streams()
        pipe.write(json.dumps([outcome.message, outcome.exit_code]).encode())
        pipe.close()

    code = 1
    try:
        code = serve(report)
    except LazyfsError as exc:
        code = exc.exit_code
        report(Outcome(str(exc), code))
    except BaseException as exc:
        report(Outcome(f"unexpected failure: {exc!r}", 1))
        raise
    finally:
        os._exit(code)


def _detach_standard_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _read_outcome(pipe: BinaryIO) -> Outcome:
    content = pipe.read()
    if not content:
        raise MountError("the mount process ended before the mount answered")
    message, exit_code = json.loads(content)
    return Outcome(message, exit_code)
