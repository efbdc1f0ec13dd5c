"""The control socket: one JSON request a line, one JSON answer a line.

Requests are ``{"command": [word, …]}``; answers ``{"ok": value}`` or
``{"error": text, "exit_code": number}``. Nothing here touches the mount, and only commands that
say so ask the network.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import trio

from lazyfs.errors import ControlError, LazyfsError, MountError
from lazyfs.fuse.control_commands import Commands
from lazyfs.fuse.control_values import Json

log = logging.getLogger("lazyfs.fuse")

MAX_REQUEST = 65536
"""Bytes of one request."""

CLIENT_SECONDS = 30.0
"""A client that sends no request, or does not take its answer, is hung up on after so long."""

MAX_CLIENTS = 32
"""Connections at a time; more wait in the socket's queue."""

QUEUE = 64


async def serve_control(
    commands: Commands,
    path: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on a Unix socket at ``path`` until cancelled; removes the socket at the end.

    Args:
        commands: What can be asked.
        path: Of the socket; must not exist.
        task_status: Told when clients can connect.

    Raises:
        MountError: the socket cannot be made.
    """
    places = trio.CapacityLimiter(MAX_CLIENTS)
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            await _bind(listener, path)
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listener.accept()
                    stream = trio.SocketStream(connection)
                    await places.acquire_on_behalf_of(stream)
                    nursery.start_soon(_serve_client, commands, stream, places)
        finally:
            _remove(path)


async def _bind(listener: trio.socket.SocketType, path: Path) -> None:
    """Listen at ``path``, which only this user can connect to from the first moment on."""
    before = os.umask(0o177)
    try:
        await listener.bind(str(path))
        listener.listen(QUEUE)
    except OSError as exc:
        raise MountError(
            f"cannot make the control socket: {exc.strerror or exc}",
            path=str(path),
            hint="addresses of sockets are short: set LAZYFS_RUNTIME_DIR to a shorter path",
        ) from exc
    finally:
        os.umask(before)


def _remove(path: Path) -> None:
    """Unlink the socket: one quick operation in a memory file system."""
    path.unlink(missing_ok=True)


async def _serve_client(
    commands: Commands, stream: trio.SocketStream, places: trio.CapacityLimiter
) -> None:
    try:
        async with stream:
            with trio.fail_after(CLIENT_SECONDS):
                request = await _read_line(stream)
            if request:
                answer = json.dumps(await _answer(commands, request)).encode() + b"\n"
                with trio.fail_after(CLIENT_SECONDS):
                    await stream.send_all(answer)
    except (trio.TooSlowError, trio.BrokenResourceError):
        log.debug("a control client went away")
    finally:
        places.release_on_behalf_of(stream)


async def _read_line(stream: trio.SocketStream) -> bytes:
    """A request; cut where it is too long or the client stops."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= MAX_REQUEST:
        piece = await stream.receive_some(4096)
        if not piece:
            break
        line += piece
    return bytes(line)


async def _answer(commands: Commands, request: bytes) -> dict[str, Json]:
    try:
        return {"ok": await commands.run(_words(request))}
    except LazyfsError as exc:
        return {"error": str(exc), "exit_code": exc.exit_code}
    except Exception:
        # The outermost loop of a request: a defect in a command must not end the mount.
        log.exception("unexpected failure of a control command, please report it")
        return {"error": "unexpected failure, see the log", "exit_code": ControlError.exit_code}


def _words(request: bytes) -> list[str]:
    try:
        words = json.loads(request)["command"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ControlError("not a request") from exc
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ControlError("a command is a list of words")
    return words
