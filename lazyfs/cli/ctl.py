"""Asking a mount about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import print_json, print_line
from lazyfs.errors import NotMounted


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
    [pinned|catalogs] | limit MB | cleanup MB | evict|pin|unpin PATH] · hosts [info | switch |
    probe | geo | set URLS] · external-hosts … · proxies [info | switch | rebalance | set SPEC] ·
    timeouts [info | set PROXY DIRECT] · catalogs [detach] · parameters · counters · reset-errors ·
    log · stacks

    Examples:  lazyfs ctl /mnt/data status  ·  lazyfs ctl --json data.example.org hosts
    """
    from lazyfs.fuse.control_client import ask
    from lazyfs.fuse.registry import Registry, runtime_directory

    entry = Registry(runtime_directory()).find(mount)
    if entry is None:
        raise NotMounted(f"no mount {mount!r}", hint="see 'lazyfs mounts'")
    answer = ask(Path(entry.socket), command)
    if json:
        print_json(answer)
    else:
        _print_plain(answer)


def _print_plain(value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                print_line(f"{indent}{name}:")
                _print_plain(inner, indent + "  ")
            else:
                print_line(f"{indent}{name}: {'' if inner is None else inner}")
    elif isinstance(value, list):
        for inner in value:
            _print_plain(inner, indent)
    else:
        print_line(f"{indent}{value}")
