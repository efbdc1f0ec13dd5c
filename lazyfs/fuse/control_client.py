"""Asking a mount over its control socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lazyfs.errors import ControlError

QUICK_SECONDS = 2.0
"""How long `lazyfs mounts` waits for one mount."""

FACT_SECONDS = 15.0
"""How long commands that wait for nothing do; a loaded machine needs a second."""

COMMAND_SECONDS = 300.0
"""How long other commands wait; a remount may have to ask every server, a pin fetches a file."""

_MAX_ANSWER = 256 << 20


def ask(path: Path, command: Sequence[str], *, timeout: float = COMMAND_SECONDS) -> Any:
    """The answer of the mount whose socket is at ``path``, as JSON values.

    Raises:
        ControlError: it does not answer in time, or refuses.
    """
    request = json.dumps({"command": list(command)}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            answer = _exchange(connection, path, request, time.monotonic() + timeout)
    except OSError as exc:
        raise ControlError(
            f"the mount does not answer: {exc.strerror or exc}",
            path=str(path),
            hint="see 'lazyfs mounts'; a dead mount is repaired by mounting again",
        ) from exc
    try:
        values = json.loads(answer)
        if "ok" in values:
            return values["ok"]
        message = values["error"]
    except (ValueError, TypeError, KeyError) as exc:
        raise ControlError("the mount gave no whole answer", path=str(path)) from exc
    raise ControlError(str(message))


def _exchange(connection: socket.socket, path: Path, request: bytes, deadline: float) -> bytes:
    """Send the request and read to the end, all before ``deadline``."""
    _limit(connection, deadline)
    connection.connect(str(path))
    connection.sendall(request)
    answer = bytearray()
    while len(answer) <= _MAX_ANSWER:
        _limit(connection, deadline)
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    return bytes(answer)


def _limit(connection: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left)
