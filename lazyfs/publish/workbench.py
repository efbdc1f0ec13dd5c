"""`Workbench`: a transaction that several commands work on, one after the other.

Its folder holds a numbered step for each change that was made. A change works on a copy; only when
all of it is done does ``state.json`` name the copy. Whoever is killed in the middle has changed
nothing, and a change that fails is as if it had not been tried.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lazyfs.cas.digest import Digest
from lazyfs.cas.layout import replace_file
from lazyfs.errors import PublishError
from lazyfs.publish.catalog_slots import SlotState
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.lease import Lease, break_lease
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.transaction import PublishResult, Transaction

LEASE_SECONDS = 24 * 3600.0
"""How long others are kept out after the last command, unless the transaction ends before."""

_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """What is known of a transaction between two commands."""

    token: str
    """Of the lease."""
    root_hash: str
    """Of the revision that it follows."""
    revision: int
    step: int
    """How many changes were made."""
    dirtab: str
    nanoseconds: bool
    slots: tuple[SlotState, ...]


class Workbench:
    """The folder of one transaction.

    Args:
        folder: Belongs to the transaction alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, target_name: str) -> Workbench:
        """The one of a repository, among those of this user."""
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        name = hashlib.sha256(target_name.encode()).hexdigest()[:16]
        return cls(Path(base) / "lazyfs" / "transactions" / name)

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open."""
        return (self.folder / _STATE).exists()

    def state(self) -> OpenTransaction:
        """What is known of the open transaction.

        Raises:
            PublishError: there is none, or its folder is damaged.
        """
        try:
            found: dict[str, Any] = json.loads((self.folder / _STATE).read_bytes())
            return OpenTransaction(**{**found, "slots": tuple(found["slots"])})
        except FileNotFoundError:
            raise PublishError(
                "no transaction is open", hint="begin one with 'lazyfs publish transaction'"
            ) from None
        except (ValueError, TypeError, KeyError, OSError) as exc:
            raise PublishError(
                f"the open transaction cannot be read: {exc}",
                path=str(self.folder),
                hint="give it up with 'lazyfs publish abort'",
            ) from exc

    def begin(
        self, publisher: Publisher, *, options: TreeOptions | None = None, wait: float = 0.0
    ) -> OpenTransaction:
        """Open a transaction on the newest revision.

        Args:
            publisher: Of the repository.
            options: How trees are published; those of later commands count for their changes.
            wait: Seconds to wait for another publisher to end.

        Raises:
            PublishError: one is open already, or another publisher is at work.
        """
        if self.is_open:
            raise PublishError(
                "a transaction is open already",
                path=str(self.folder),
                hint="end it with 'lazyfs publish commit' or 'lazyfs publish abort'",
            )
        options = options or TreeOptions()
        shutil.rmtree(self.folder, ignore_errors=True)
        lease = publisher.lease_for_user("transaction", LEASE_SECONDS, wait=wait)
        try:
            step = self._step(0)
            step.mkdir(parents=True)
            with publisher.opened(step, options) as transaction:
                state = OpenTransaction(
                    lease.holder.token,
                    str(transaction.head.manifest.root_catalog),
                    transaction.head.manifest.revision,
                    0,
                    str(transaction.dirtab or ""),
                    options.nanoseconds,
                    tuple(transaction.tree.slots.save()),
                )
            self._save(state)
        except BaseException:
            lease.release()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return state

    @contextlib.contextmanager
    def change(
        self, publisher: Publisher, *, options: TreeOptions | None = None
    ) -> Iterator[Transaction]:
        """The open transaction, to be changed in a ``with`` block; kept if the block ends well.

        Raises:
            PublishError: none is open, or somebody else has taken the repository over.
        """
        state = self.state()
        with self._resumed(publisher, state, options) as transaction:
            yield transaction
            slots = tuple(transaction.tree.slots.save())
            self._save(replace(state, step=state.step + 1, slots=slots))
        shutil.rmtree(self._step(state.step), ignore_errors=True)

    def commit(
        self, publisher: Publisher, *, options: TreeOptions | None = None, **more: Any
    ) -> PublishResult:
        """Publish the open transaction and end it.

        Args:
            publisher: Of the repository.
            options: Of the nesting of catalogs.
            more: As for `Transaction.commit`.

        Raises:
            PublishError: it cannot be published; it stays open.
        """
        state = self.state()
        with self._resumed(publisher, state, options) as transaction:
            result = transaction.commit(**more)
        self._end(publisher, state)
        return result

    def abort(self, publisher: Publisher, *, force: bool = False) -> None:
        """Give up the open transaction; what was uploaded is garbage to be collected.

        Args:
            publisher: Of the repository.
            force: Take the right to publish away from whoever has it, too.

        Raises:
            PublishError: none is open.
        """
        if force:
            break_lease(publisher.ledger.target)
        elif self.is_open:
            self._end(publisher, self.state())
        else:
            self.state()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- steps -------------------------------------------------------------------------------

    def _step(self, number: int) -> Path:
        return self.folder / str(number)

    def _save(self, state: OpenTransaction) -> None:
        replace_file(self.folder / _STATE, json.dumps(asdict(state)).encode())

    @contextlib.contextmanager
    def _resumed(
        self, publisher: Publisher, state: OpenTransaction, options: TreeOptions | None
    ) -> Iterator[Transaction]:
        """The transaction on a copy of its last step, which goes unless it becomes the next."""
        Lease.resume(publisher.ledger.target, state.token, LEASE_SECONDS)
        step = self._step(state.step + 1)
        shutil.rmtree(step, ignore_errors=True)
        shutil.copytree(self._step(state.step), step)
        options = replace(options or TreeOptions(), nanoseconds=state.nanoseconds)
        dirtab = Digest.parse_content(state.dirtab) if state.dirtab else None
        try:
            with publisher.opened(
                step, options, slots=list(state.slots), dirtab=dirtab
            ) as transaction:
                if str(transaction.head.manifest.root_catalog) != state.root_hash:
                    raise PublishError(
                        "somebody else has published since the transaction began",
                        hint="give it up with 'lazyfs publish abort' and begin again",
                    )
                yield transaction
        except BaseException:
            shutil.rmtree(step, ignore_errors=True)
            raise

    def _end(self, publisher: Publisher, state: OpenTransaction) -> None:
        with contextlib.suppress(PublishError):
            # If it was lost, others have it, and there is nothing to give back.
            Lease.resume(publisher.ledger.target, state.token, LEASE_SECONDS).release()
        shutil.rmtree(self.folder, ignore_errors=True)
