"""Asking a mount about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.ctl_text import as_text
from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import print_json, print_line
from lazyfs.errors import ControlError, NotMounted
from lazyfs.fuse.control_client import COMMAND_SECONDS, FACT_SECONDS, ask
from lazyfs.fuse.registry import MountEntry, Registry, runtime_directory
from lazyfs.fuse.unmount import locate

FACTS = frozenset(("status", "revision", "pid", "version", "mountpoint"))
"""Commands that wait for nothing."""


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
    seconds = FACT_SECONDS if command[0] in FACTS else COMMAND_SECONDS
    answer = ask(Path(_find(mount).socket), command, timeout=seconds)
    if json:
        print_json(answer)
    else:
        for line in as_text(command, answer):
            print_line(line)
    if command == ["remount"] and str(answer).startswith("failed"):
        raise typer.Exit(ControlError.exit_code)


def _find(mount: str) -> MountEntry:
    registry = Registry(runtime_directory())
    # What is no mount point itself may be a link to one.
    entry = registry.find(mount) or registry.at(locate(Path(mount)))
    if entry is None:
        raise NotMounted(f"no mount {mount!r}", hint="see 'lazyfs mounts'")
    return entry
