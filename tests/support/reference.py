"""Repositories that the CernVM-FS server tools published, and what its client showed of them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"

NAMES = ("basic", "chunked", "chunknone", "shake", "rmd", "history", "external")
TAGS = ("rel-1", "rel-2", "rel-3")
"""Tags of the repository ``history`` that have a truth file of their own."""

_ERRNO = "errno:"


@dataclass(frozen=True, slots=True)
class Truth:
    """One path as the real client showed it."""

    path: bytes
    """``b""`` is the root, others begin with a slash."""
    mode: int
    size: int
    mtime_ns: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    target: bytes | None
    """Expanded target of a symlink."""
    sha256: str | None
    """Of a regular file's content."""
    xattrs: dict[str, bytes]
    """Attributes that were answered, magic ones included."""
    xattr_errors: dict[str, int]
    """errno of magic attributes that were not."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One repository, unpacked."""

    fqrn: str
    folder: Path
    """Holds ``.cvmfspublished`` and ``data``; its last component is the name."""
    key: Path
    """The master public key."""

    def truth(self, tag: str | None = None) -> list[Truth]:
        """What the client showed, of the newest revision or at a tag."""
        name = self.fqrn if tag is None else f"{self.fqrn}@{tag}"
        lines = (FIXTURES / f"{name}.jsonl").read_text().splitlines()
        return [_truth(json.loads(line)) for line in lines]


class ReferenceRepositories:
    """Unpacks reference repositories, each once, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> Reference:
        """The repository of that name, e.g. ``basic``; skips the test if there are none here."""
        require_fixtures()
        fqrn = f"{name}.ref.example"
        if not (self._folder / fqrn).exists():
            _unpack(f"{fqrn}.tar", self._folder)
        return Reference(fqrn, self._folder / fqrn, FIXTURES / f"{fqrn}.pub")

    @property
    def root(self) -> Path:
        """The folder to serve: all repositories asked for, and ``external-data``."""
        return self._folder

    def external_data(self) -> Path:
        """The folder with the content of the external files."""
        require_fixtures()
        if not (self._folder / "external-data").exists():
            _unpack("external-data.tar", self._folder)
        return self._folder / "external-data"


def require_fixtures() -> None:
    """Skip the test where the reference repositories are not beside this work tree."""
    if not FIXTURES.is_dir():
        pytest.skip("../shared/fixtures is not here")


def _unpack(name: str, folder: Path) -> None:
    # Not tarfile: its extraction filters differ between the Pythons that are supported.
    subprocess.run(["tar", "-xf", FIXTURES / name, "-C", folder], check=True)


def _truth(line: dict[str, object]) -> Truth:
    path = bytes.fromhex(str(line["path"]))
    xattrs = line.get("xattr", {})
    target = line.get("target")
    sha256 = line.get("sha256")
    rdev = line.get("rdev", [0, 0])
    assert isinstance(xattrs, dict)
    assert isinstance(rdev, list)
    errors = {name: value for name, value in xattrs.items() if value.startswith(_ERRNO)}
    return Truth(
        path=b"" if path == b"." else b"/" + path,
        mode=int(str(line["mode"]), 8),
        size=_number(line["size"]),
        mtime_ns=_number(line["mtime_ns"]),
        nlink=_number(line["nlink"]),
        uid=_number(line["uid"]),
        gid=_number(line["gid"]),
        rdev=os.makedev(*rdev),
        target=bytes.fromhex(target) if isinstance(target, str) else None,
        sha256=sha256 if isinstance(sha256, str) else None,
        xattrs={k: bytes.fromhex(v) for k, v in xattrs.items() if k not in errors},
        xattr_errors={k: int(v.removeprefix(_ERRNO)) for k, v in errors.items()},
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
