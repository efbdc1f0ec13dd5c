"""The files of the demonstration: what any Debian machine has."""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

LARGE_BYTES = 64 << 20
"""One large file is made, because not every machine has one."""

MARKER = ".cvmfscatalog"
_SKIPPED = ("__pycache__", "site-packages", "dist-packages", "test", "idlelib", "*.a")


def build_tree(folder: Path) -> int:
    """Lay the files out below ``folder``; their number.

    A Python that runs from there, some documentation, and a large file.
    """
    library = Path(sysconfig.get_path("stdlib"))
    target = folder / "python" / "lib" / library.name
    shutil.copytree(library, target, symlinks=True, ignore=shutil.ignore_patterns(*_SKIPPED))
    (folder / "python" / MARKER).touch()
    binary = folder / "python" / "bin" / "python3"
    binary.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), binary)
    _copy_libraries(folder / "python" / "lib")
    for source in (Path("/usr/share/doc"), Path("/usr/share/zoneinfo")):
        if source.is_dir():
            part = folder / "share" / source.name
            shutil.copytree(source, part, symlinks=True, ignore_dangling_symlinks=True)
            (part / MARKER).touch()
    _write_large(folder / "data" / "large.bin")
    (folder / "VERSION").write_text("1\n")
    return sum(path.is_file() for path in folder.rglob("*"))


def _copy_libraries(folder: Path) -> None:
    """The shared library of a Python that was built with one."""
    directory = sysconfig.get_config_var("LIBDIR")
    for library in Path(directory or "/nowhere").glob("libpython3*.so*"):
        shutil.copy2(library, folder / library.name, follow_symlinks=True)


def _write_large(path: Path) -> None:
    path.parent.mkdir()
    with path.open("wb") as file:
        for number in range(LARGE_BYTES >> 20):
            file.write(hashlib.shake_128(b"%d" % number).digest(1 << 20))
