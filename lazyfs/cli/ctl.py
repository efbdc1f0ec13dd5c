"""Asking a mount about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.ctl_text import as_text
from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import print_json, print_line
from lazyfs.errors import ControlError, NotMounted
from lazyfs.fuse.control_client import ask
from lazyfs.fuse.registry import Registry, runtime_directory


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "ctl",
        rich_help_panel="Mounting",
        context_settings={"allow_interspersed_args": False},
    )(ctl)


def ctl(
    mount: Annotated[
        str, typer.Argument(metavar="DIR|FQRN", help="A mount point, or a name mounted once.")
    ],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="See below.")],
    json: JsonOption = False,
) -> None:
    """Ask a mount, or tell it to do something.

    Commands: status · remount · revision · pid · version · mountpoint · cache [size | list
    [pinned|catalogs] | limit [get|set MB] | cleanup MB | evict|pin|unpin PATH] · hosts [info |
    switch | probe | geo | set URLS] · proxies [info | switch | rebalance | set SPEC [FALLBACK]] ·
    external-hosts … · external-proxies … · timeouts [info | set PROXY DIRECT] ·
    max-ttl [get | set MINUTES] · open-catalogs · detach-catalogs · parameters · counters ·
    reset-error-counters · log · stacks

    Examples:  lazyfs ctl /mnt/data status  ·  lazyfs ctl --json data.example.org hosts
    """
    entry = Registry(runtime_directory()).find(mount)
    if entry is None:
        raise NotMounted(f"no mount {mount!r}", hint="see 'lazyfs mounts'")
    answer = ask(Path(entry.socket), command)
    if json:
        print_json(answer)
    else:
        for line in as_text(command, answer):
            print_line(line)
    if command == ["remount"] and str(answer).startswith("failed"):
        raise typer.Exit(ControlError.exit_code)
