"""A web server for a repository folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.output import print_line
from lazyfs.errors import ConfigError
from lazyfs.net.static_server import StaticServer

MBIT = 125_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", rich_help_panel="Tools")(serve)


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What to serve.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    delay: Annotated[float, typer.Option(help="Milliseconds added to every request.")] = 0.0,
    bandwidth: Annotated[
        float | None, typer.Option(help="Mbit/s shared by all connections.")
    ] = None,
) -> None:
    """Serve a folder over HTTP, for demos and tests; prints its URL and runs until interrupted.

    Answers GET and HEAD with single ranges (Range), keep-alive and the Cache-Control of upstream's
    servers: a minute for manifest and whitelist, three days for objects. No TLS, no listings.
    Put a real web server in front of what others shall reach.

    Examples:  lazyfs serve /srv/cvmfs  ·  lazyfs serve repo --port 0 --delay 20 --bandwidth 100
    """
    if not folder.is_dir():
        raise ConfigError("not a directory", path=str(folder))
    rate = bandwidth * MBIT if bandwidth else None
    try:
        server = StaticServer(folder, host, port, delay=delay / 1000, bandwidth=rate)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    with server:
        print_line(f"serving {folder} at {server.url}")
        server.wait()
