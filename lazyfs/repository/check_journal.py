"""`CheckJournal`: remembers which objects a check has verified, so that a later run goes on."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ConfigError

_HEAD = "lazyfs check 1\n"
"""First line of a journal: anything else that a user names by mistake stays as it is."""


class CheckJournal:
    """Verified objects, one a line, appended as the check goes on.

    Args:
        path: The file; None remembers nothing beyond this run.

    Raises:
        ConfigError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._known: set[str] = set()
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            content = path.read_text() if path.exists() else ""
            if not content.startswith(_HEAD) and not _HEAD.startswith(content):
                raise ConfigError(
                    "this is no journal of a check",
                    path=str(path),
                    hint="give a file that does not exist yet",
                )
            # A last line without its end was being written when the run was killed.
            whole = content[: content.rfind("\n") + 1] or _HEAD
            self._known = set(whole.removeprefix(_HEAD).splitlines())
            if whole != content:
                path.write_text(whole)
            self._file = path.open("a", buffering=1)
        except OSError as exc:
            message = f"cannot use the journal: {exc.strerror}"
            raise ConfigError(message, path=str(path)) from exc
        except UnicodeDecodeError as exc:
            raise ConfigError("this is no journal of a check", path=str(path)) from exc

    def knows(self, ref: ObjectRef) -> bool:
        """Whether the object was verified, in this run or an earlier one."""
        return ref.claim in self._known

    def add(self, ref: ObjectRef) -> None:
        """Remember that the object was verified.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._known.add(ref.claim)
        try:
            if self._file is not None:
                self._file.write(f"{ref.claim}\n")
        except OSError as exc:
            raise ConfigError(f"cannot write the journal: {exc.strerror}") from exc

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
