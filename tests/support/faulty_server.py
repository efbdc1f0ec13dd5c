"""`FaultyServer`: serves a folder over HTTP/1.1 and breaks the protocol on purpose."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import unquote

from support.faults import Exchange, Fault

LINE_LIMIT = 1 << 16
"""Longest header line that is read."""

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    path: str
    """Unescaped, without the leading slash."""
    headers: dict[str, str]
    """Names in lower case."""


@dataclass(slots=True)
class Rule:
    """Which requests a fault strikes."""

    pattern: str
    fault: Fault
    skip: int = 0
    """Matching requests that pass before the first strike."""
    times: int | None = None
    """Strikes; None: for ever."""
    struck: int = field(default=0)

    def strikes(self, path: str) -> bool:
        """Whether this request is struck; counts it."""
        if not fnmatch.fnmatchcase(path, self.pattern):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


class FaultyServer:
    """A server on loopback whose faults can be added and cleared while it runs.

    Args:
        root: The folder it serves, for instance one that holds ``cvmfs/<fqrn>``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._seen: list[Seen] = []
        self._gate = threading.Event()
        self._gate.set()
        self._cleared = threading.Event()
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.accepted = 0
        """Connections so far."""
        self.restart()

    # --- faults ----------------------------------------------------------------------------

    def fault(self, pattern: str, fault: Fault, *, skip: int = 0, times: int | None = None) -> Rule:
        """Strike requests whose path (without leading slash) matches; the first rule wins."""
        rule = Rule(pattern, fault, skip, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all rules and let go of every request that a fault holds back."""
        with self._lock:
            self._rules.clear()
            held, self._cleared = self._cleared, threading.Event()
        held.set()

    @property
    def seen(self) -> list[Seen]:
        """All requests so far."""
        with self._lock:
            return list(self._seen)

    def forget(self) -> None:
        """Empty `seen`."""
        with self._lock:
            self._seen.clear()

    def count(self, pattern: str = "*") -> int:
        """Requests so far whose path matches."""
        return sum(fnmatch.fnmatchcase(seen.path, pattern) for seen in self.seen)

    # --- life cycle ------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash; stays the same after `restart`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port, also while stopped."""
        return self._port

    def pause(self) -> None:
        """Answer nothing: clients connect (the kernel does that) and wait."""
        self._gate.clear()

    def resume(self) -> None:
        """Answer again, also what came meanwhile."""
        self._gate.set()

    def stop(self) -> None:
        """Refuse connections and break those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections = list(self._connections)
            held, self._cleared = self._cleared, threading.Event()
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        held.set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def restart(self) -> None:
        """Listen again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._gate.set()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._gate.set()

    # --- serving ---------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                alive = self._listener is listener
                if alive:
                    self.accepted += 1
                    self._connections.add(connection)
            if not alive:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                while (head := _read_head(reader)) and self._answer(connection, head):
                    pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, connection: socket.socket, seen: Seen) -> bool:
        self._gate.wait()
        with self._lock:
            self._seen.append(seen)
            rule = next((rule for rule in self._rules if rule.strikes(seen.path)), None)
            cleared = self._cleared
        exchange = Exchange(connection, seen.path, seen.headers, self._body(seen), cleared)
        if rule is not None:
            return rule.fault(exchange)
        return exchange.answer()

    def _body(self, seen: Seen) -> bytes | None:
        file = (self._root / seen.path).resolve()
        if not file.is_relative_to(self._root.resolve()) or not file.is_file():
            return None
        body = file.read_bytes()
        if wanted := _RANGE.fullmatch(seen.headers.get("range", "")):
            return body[int(wanted[1]) : int(wanted[2]) + 1]
        return body


def _read_head(reader: BinaryIO) -> Seen | None:
    first = reader.readline(LINE_LIMIT).decode("latin-1").split()
    if len(first) != 3:
        return None
    headers: dict[str, str] = {}
    while line := reader.readline(LINE_LIMIT).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    path = unquote(first[1].partition("?")[0], errors="surrogateescape").lstrip("/")
    return Seen(path, headers)
