"""The control socket: one JSON request a line, one JSON answer a line.

Requests are ``{"command": [word, …]}``; answers ``{"ok": value}`` or ``{"error": text}``. Nothing
here touches the mount, and only commands that say so ask the network.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import trio

from lazyfs.errors import ControlError, LazyfsError
from lazyfs.fuse.control_commands import Commands, Json

log = logging.getLogger("lazyfs.fuse")

MAX_REQUEST = 65536
"""Bytes of one request."""

CLIENT_SECONDS = 30.0
"""A client that sends no request in that time is hung up on."""


async def serve_control(
    commands: Commands,
    path: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on a Unix socket at ``path`` until cancelled; removes the socket at the end.

    Args:
        commands: What can be asked.
        path: Of the socket; an old one is replaced.
        task_status: Told when clients can connect.
    """
    _remove(path)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        await listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(16)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection, _ = await listener.accept()
                nursery.start_soon(_serve_client, commands, trio.SocketStream(connection))
    finally:
        listener.close()
        _remove(path)


def _remove(path: Path) -> None:
    """Unlink a socket: one quick operation in a memory file system."""
    path.unlink(missing_ok=True)


async def _serve_client(commands: Commands, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            with trio.fail_after(CLIENT_SECONDS):
                request = await _read_line(stream)
            if request:
                answer = await _answer(commands, request)
                await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (trio.TooSlowError, trio.BrokenResourceError):
            log.info("a control client went away")


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= MAX_REQUEST:
        piece = await stream.receive_some(4096)
        if not piece:
            break
        line += piece
    return line


async def _answer(commands: Commands, request: bytes) -> dict[str, Json]:
    try:
        words = _words(request)
        return {"ok": await commands.run(words)}
    except LazyfsError as exc:
        return {"error": str(exc), "exit_code": exc.exit_code}


def _words(request: bytes) -> list[str]:
    try:
        words = json.loads(request)["command"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ControlError("not a request") from exc
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ControlError("a command is a list of words")
    return words
