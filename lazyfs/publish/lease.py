"""`Lease`: the right to change a repository, held by one publisher at a time.

A lease is a document in the target. Whoever holds it renews it while at work; it can be taken over
when it has run out, and at once when its process is seen to be dead on this machine. It keeps two
publishers from doing the same work twice; what keeps them from mixing their work is the conditional
replacement of the manifest.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lazyfs.errors import PublishError
from lazyfs.publish.target import Document, UploadTarget

log = logging.getLogger("lazyfs.publish")

LEASE_PATH = "data/txn/lease"

LEASE_SECONDS = 120.0
"""How long a lease holds without being renewed; it is renewed three times as often."""

POLL_SECONDS = 0.5
"""Between two looks at somebody else's lease while waiting for it."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease, until when, and how to see that they are gone."""

    token: str
    owner: str
    """User and machine, for people."""
    purpose: str
    expires: float
    """Unix time."""
    boot: str = ""
    """Where the process can be looked for, see `_boot`; empty: no process stands behind it."""
    pid: int = 0
    started: int = 0
    """When the process started, in clock ticks since boot: numbers of processes are reused."""

    def is_gone(self, now: float) -> bool:
        """Whether the lease may be taken over."""
        if now >= self.expires:
            return True
        return self.boot != "" and self.boot == _boot() and _started(self.pid) != self.started

    def __str__(self) -> str:
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.expires))
        process = f", process {self.pid}" if self.pid else ""
        return f"{self.owner}{process} ({self.purpose}), until {until}"


def new_holder(purpose: str, seconds: float, *, now: float, process: bool = True) -> Holder:
    """This process, or this user if the lease shall outlive it."""
    owner = f"{_user()}@{socket.gethostname()}"
    token = secrets.token_hex(16)
    if not process:
        return Holder(token, owner, purpose, now + seconds)
    pid = os.getpid()
    return Holder(token, owner, purpose, now + seconds, _boot(), pid, _started(pid) or 0)


class Lease:
    """One lease that is held. Safe to use from many threads.

    Args:
        target: Where it lies.
        holder: Who has it.
        version: Of the document.
        seconds: For how long it is renewed.
        clock: Tells Unix time.
    """

    def __init__(
        self, target: UploadTarget, holder: Holder, version: str, seconds: float, clock: Clock
    ) -> None:
        self._target = target
        self._version = version
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self.holder = holder

    @classmethod
    def acquire(
        cls,
        target: UploadTarget,
        holder: Holder,
        *,
        wait: float = 0.0,
        clock: Clock = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Lease:
        """The lease for ``holder``.

        Args:
            target: The repository.
            holder: See `new_holder`.
            wait: Seconds to wait for somebody else's lease to end.
            clock: Tells Unix time.
            sleep: Waits.

        Raises:
            PublishError: somebody else has it.
        """
        seconds = holder.expires - clock()
        deadline = time.monotonic() + wait
        while True:
            there = target.read(LEASE_PATH)
            other = _parse(there) if there is not None else None
            if other is None or other.is_gone(clock()):
                holder = replace(holder, expires=clock() + seconds)
                known = there.version if there is not None else None
                version = target.replace_if(LEASE_PATH, _dump(holder), known)
                if version is not None:
                    return cls(target, holder, version, seconds, clock)
                continue
            if time.monotonic() >= deadline:
                raise PublishError(
                    f"another publisher is at work: {other}",
                    path=target.name,
                    hint="wait for it with --wait, or end it with 'lazyfs publish abort --force'",
                )
            sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    @classmethod
    def resume(
        cls, target: UploadTarget, token: str, seconds: float, *, clock: Clock = time.time
    ) -> Lease:
        """The lease that an earlier process took for ``token``.

        Raises:
            PublishError: it is somebody else's by now.
        """
        there = target.read(LEASE_PATH)
        holder = _parse(there) if there is not None else None
        if there is None or holder is None or holder.token != token:
            raise _lost(target, holder)
        lease = cls(target, holder, there.version, seconds, clock)
        lease.renew()
        return lease

    def renew(self) -> None:
        """Hold it for longer.

        Raises:
            PublishError: it is somebody else's by now.
        """
        with self._lock:
            holder = replace(self.holder, expires=self._clock() + self._seconds)
            version = self._target.replace_if(LEASE_PATH, _dump(holder), self._version)
            if version is None:
                there = self._target.read(LEASE_PATH)
                raise _lost(self._target, _parse(there) if there is not None else None)
            self.holder, self._version = holder, version

    def release(self) -> None:
        """Let others publish.

        The document stays, as one that has run out: to remove it could remove that of somebody
        who has just taken over.
        """
        with self._lock:
            ended = replace(self.holder, expires=0.0)
            self._target.replace_if(LEASE_PATH, _dump(ended), self._version)


@contextlib.contextmanager
def held(target: UploadTarget, purpose: str, *, wait: float = 0.0) -> Iterator[Lease]:
    """Hold the lease in a ``with`` block, renewed by a thread as long as it runs.

    Raises:
        PublishError: somebody else has it.
    """
    lease = Lease.acquire(target, new_holder(purpose, LEASE_SECONDS, now=time.time()), wait=wait)
    with _renewed(lease):
        try:
            yield lease
        finally:
            try:
                lease.release()
            except PublishError as exc:
                # It runs out by itself; what happened in the block matters more.
                log.warning("cannot give the lease back: %s", exc)


@contextlib.contextmanager
def _renewed(lease: Lease) -> Iterator[None]:
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE_SECONDS / 3):
            try:
                lease.renew()
            except PublishError as exc:
                # The manifest will not be replaced if somebody else has done so meanwhile.
                log.warning("cannot renew the lease: %s", exc)

    thread = threading.Thread(target=renew, name="lazyfs-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def current_holder(target: UploadTarget, *, clock: Clock = time.time) -> Holder | None:
    """Who has the lease now; None: nobody."""
    there = target.read(LEASE_PATH)
    holder = _parse(there) if there is not None else None
    return holder if holder is not None and not holder.is_gone(clock()) else None


def break_lease(target: UploadTarget) -> Holder | None:
    """Take the lease away from whoever has it, whom this returns."""
    there = target.read(LEASE_PATH)
    holder = _parse(there) if there is not None else None
    if there is not None and holder is not None:
        # Whoever has taken it meanwhile keeps it; whoever had it cannot go on with its token.
        broken = replace(holder, token="", expires=0.0)
        target.replace_if(LEASE_PATH, _dump(broken), there.version)
    return holder


def _dump(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode() + b"\n"


def _parse(document: Document) -> Holder | None:
    """None: a damaged lease keeps nobody out."""
    try:
        return Holder(**json.loads(document.content))
    except (ValueError, TypeError):
        return None


def _lost(target: UploadTarget, holder: Holder | None) -> PublishError:
    by = f", {holder} has it" if holder is not None else ""
    return PublishError(
        f"the right to publish was lost{by}",
        path=target.name,
        hint="nothing was published; begin a new transaction",
    )


def _boot() -> str:
    """This boot of this machine, and among its containers the one whose processes are seen here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this machine started; None if there is none, 0 if it cannot be told."""
    try:
        # The name in parentheses may hold anything; what follows it is numbers.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError):
        return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
