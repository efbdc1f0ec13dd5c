"""Mounting: mount, umount, mounts."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.options import CommonOptions, JsonOption, RepoArgument, with_common_options
from lazyfs.cli.output import print_json, print_line
from lazyfs.errors import ControlError

_PANEL = "Mounting"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("mount", rich_help_panel=_PANEL)(with_common_options(mount))
    app.command("umount", rich_help_panel=_PANEL)(umount)
    app.command("mounts", rich_help_panel=_PANEL)(mounts)


def mount(
    common: CommonOptions,
    repo: RepoArgument,
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="An existing directory.")],
    *,
    options: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="OPT[,OPT]", help="Mount options: allow_other, uid=, …"),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to standard error.")
    ] = False,
    log: Annotated[Path | None, typer.Option(help="Log to this file, not to syslog.")] = None,
) -> None:
    """Mount a repository; returns when the mount answers.

    Examples:  lazyfs mount data.example.org /mnt/data  ·
    lazyfs mount http://host/cvmfs/data.example.org /mnt/data --pubkey data.pub -o allow_other
    """
    from lazyfs.cli.mounting import mount_repository

    mount_repository(
        repo,
        mountpoint,
        overrides=common.overrides,
        options=",".join(options or ()),
        foreground=foreground,
        log_file=log.absolute() if log else None,
    )


def umount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is mounted.")],
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Detach now, end when nothing uses it.")
    ] = False,
) -> None:
    """End a mount, and wait until its process is gone.

    Examples:  lazyfs umount /mnt/data  ·  lazyfs umount --lazy /mnt/data
    """
    from lazyfs.fuse.mount import unmount

    unmount(mountpoint, lazy=lazy)


def mounts(json: JsonOption = False) -> None:
    """List your mounts; never touches a mount point.

    Examples:  lazyfs mounts  ·  lazyfs mounts --json
    """
    from lazyfs.fuse.control_client import STATUS_SECONDS, ask
    from lazyfs.fuse.registry import Registry, runtime_directory

    rows = []
    for entry in Registry(runtime_directory()).live():
        try:
            revision = ask(Path(entry.socket), ["revision"], timeout=STATUS_SECONDS)
        except ControlError:
            revision = None
        rows.append({**asdict(entry), "revision": revision})
    if json:
        print_json(rows)
        return
    for row in rows:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"]))
        revision = "does not answer" if row["revision"] is None else f"revision {row['revision']}"
        print_line(
            f"{row['fqrn']} on {row['mountpoint']}  pid {row['pid']}  {revision}  since {since}"
        )
