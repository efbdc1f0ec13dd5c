"""Publish, serve, mount, read lazily and update a repository, all on this machine."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo.show import run_demo


def main() -> int:
    """Run the demonstration; the exit code."""
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="lazyfs-demo-") as folder:
            run_demo(Path(folder), console)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted; everything is cleaned up[/]")
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


sys.exit(main())
