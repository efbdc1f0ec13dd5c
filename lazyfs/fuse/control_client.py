"""Asking a mount over its control socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lazyfs.errors import ControlError

STATUS_SECONDS = 2.0
"""How long `lazyfs mounts` waits for one mount."""

COMMAND_SECONDS = 120.0
"""How long other commands wait; a remount may have to ask every server."""

_MAX_ANSWER = 256 << 20


def ask(path: Path, command: Sequence[str], *, timeout: float = COMMAND_SECONDS) -> Any:
    """The answer of the mount whose socket is at ``path``, as JSON values.

    Raises:
        ControlError: it does not answer in time, or refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": list(command)}).encode() + b"\n")
            answer = _read_all(connection)
    except OSError as exc:
        raise ControlError(
            f"the mount does not answer: {exc.strerror or exc}",
            path=str(path),
            hint="see 'lazyfs mounts'; a dead mount is repaired by mounting again",
        ) from exc
    try:
        values = json.loads(answer)
    except ValueError as exc:
        raise ControlError("the mount gave no whole answer", path=str(path)) from exc
    if "error" in values:
        error = ControlError(values["error"])
        raise error
    return values["ok"]


def _read_all(connection: socket.socket) -> bytes:
    pieces = []
    size = 0
    while (piece := connection.recv(65536)) and size <= _MAX_ANSWER:
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
