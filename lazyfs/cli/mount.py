"""Mounting: mount, umount, mounts."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.options import CommonOptions, JsonOption, RepoArgument, with_common_options
from lazyfs.cli.output import print_json, print_line
from lazyfs.fuse.logs import LogTarget
from lazyfs.fuse.options import parse_options
from lazyfs.fuse.overview import MountReport, survey
from lazyfs.fuse.registry import Registry, runtime_directory

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

    outcome = mount_repository(
        repo,
        mountpoint,
        overrides=common.overrides,
        options=parse_options(",".join(options or ())),
        log=LogTarget(log.absolute() if log else None, foreground, common.verbose),
    )
    if outcome.message:
        sys.stderr.write(f"lazyfs: {outcome.message}\n")
    raise typer.Exit(outcome.exit_code)


def umount(
    mountpoint: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is mounted.")],
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Detach now, end when nothing uses it.")
    ] = False,
) -> None:
    """End a mount, and wait until its process is gone.

    Examples:  lazyfs umount /mnt/data  ·  lazyfs umount --lazy /mnt/data
    """
    from lazyfs.fuse.unmount import unmount

    unmount(mountpoint, Registry(runtime_directory()), lazy=lazy)


def mounts(json: JsonOption = False) -> None:
    """List your mounts, and those of others by their place; never touches a mount point.

    Examples:  lazyfs mounts  ·  lazyfs mounts --json
    """
    reports = survey(Registry(runtime_directory()))
    if json:
        print_json([{**asdict(report), "state": report.state.name.lower()} for report in reports])
        return
    for report in reports:
        print_line(_line(report))


def _line(report: MountReport) -> str:
    parts = [f"{report.fqrn} on {report.mountpoint}", report.state.value]
    if report.revision is not None:
        parts.append(f"revision {report.revision}")
    if report.pid is not None:
        parts.append(f"pid {report.pid}")
    if report.since is not None:
        parts.append(time.strftime("since %Y-%m-%d %H:%M", time.localtime(report.since)))
    return "  ".join(parts)
