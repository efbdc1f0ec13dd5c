"""Looking after the local cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cas.fsck import fsck
from lazyfs.cas.layout import CacheLayout
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cli.options import (
    CommonOptions,
    JsonOption,
    RepoArgument,
    encode_path,
    with_common_options,
)
from lazyfs.cli.output import human_bytes, print_json, print_line, progress_bar
from lazyfs.config.load import cache_settings
from lazyfs.config.settings import MIB
from lazyfs.errors import CacheError

CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", readable=False, help="Directory of the cache; else the configured one."
    ),
]
TreeArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A file or a directory in the repository.")
]
_MAX_MB = 1 << 40


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Look after the local cache: usage, list, pin, evict, limit, fsck, wipe.",
        no_args_is_help=True,
    )
    group.command("usage")(usage)
    group.command("list")(list_)
    group.command("pin")(with_common_options(pin))
    group.command("unpin")(with_common_options(unpin))
    group.command("evict")(with_common_options(evict))
    # So that -1, which upstream writes for no quota, is a number and no option.
    group.command("limit", context_settings={"ignore_unknown_options": True})(limit)
    group.command("fsck")(fsck_)
    group.command("wipe")(wipe)
    app.add_typer(group, name="cache", rich_help_panel="Cache")


@contextmanager
def _open(directory: Path | None) -> Iterator[LocalCache]:
    settings = cache_settings(os.environ)
    if directory is not None:
        settings = replace(settings, directory=directory)
    layout = CacheLayout(settings.directory)
    # One that may not be searched is opened, and says so.
    if not os.path.isdir(layout.root) or (  # noqa: PTH112
        os.access(layout.root, os.X_OK) and not layout.sentinel.exists()
    ):
        raise CacheError("there is no cache", path=str(settings.directory), hint="give --cache")
    with LocalCache.open(settings) as cache:
        yield cache


def usage(cache: CacheOption = None, json: JsonOption = False) -> None:
    """Show how full the cache is.

    Examples:  lazyfs cache usage  ·  lazyfs cache usage --cache DIR --json
    """
    with _open(cache) as opened:
        found = opened.usage()
    if json:
        print_json(asdict(found))
        return
    quota = "none" if found.limit is None else human_bytes(found.limit)
    print_line(f"{found.objects} objects, {human_bytes(found.used)} of {quota}")
    print_line(
        f"pinned {human_bytes(found.pinned)}, being written {human_bytes(found.temporary)},"
        f" evicted {found.evictions}, found damaged {found.healed}"
    )


def list_(
    cache: CacheOption = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Only what is pinned.")] = False,
    json: JsonOption = False,
) -> None:
    """List cached objects, most recently used first.

    Examples:  lazyfs cache list  ·  lazyfs cache list --pinned --json
    """
    with _open(cache) as opened:
        entries = [entry for entry in opened.entries() if entry.pinned or not pinned]
    if json:
        print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        print_line(f"{entry.size:>12} {'P' if entry.pinned else ' '} {entry.key}  {entry.label}")


def _each_object(common: CommonOptions, repo: str, path: str, verb: str) -> None:
    with common.open(repo) as repository, progress_bar(verb) as advance:
        revision = repository.current
        done = 0
        for node in revision.walk(revision.resolve(encode_path(path)).path):
            for extent in revision.extents(node) if node.is_file else ():
                if verb == "pin":
                    repository.store.open(extent.ref).close()
                change = {
                    "pin": repository.cache.pin,
                    "unpin": repository.cache.unpin,
                    "evict": repository.cache.evict,
                }[verb]
                done += change(extent.ref.key)
                advance(done, 0)
    print_line(f"{done} objects")


def pin(common: CommonOptions, repo: RepoArgument, path: TreeArgument) -> None:
    """Fetch a file or a tree and keep it until it is unpinned.

    Examples:  lazyfs cache pin data.example.org /software  ·  lazyfs cache unpin REPO /software
    """
    _each_object(common, repo, path, "pin")


def unpin(common: CommonOptions, repo: RepoArgument, path: TreeArgument) -> None:
    """Let a pinned file or tree go when room is needed.

    Examples:  lazyfs cache unpin data.example.org /software  ·  lazyfs cache list --pinned
    """
    _each_object(common, repo, path, "unpin")


def evict(common: CommonOptions, repo: RepoArgument, path: TreeArgument) -> None:
    """Drop a file or a tree from the cache.

    Examples:  lazyfs cache evict data.example.org /big  ·  lazyfs cache evict REPO /
    """
    _each_object(common, repo, path, "evict")


def limit(
    megabytes: Annotated[
        int,
        typer.Argument(metavar="MB", min=-1, max=_MAX_MB, help="The quota in MB; -1 for none."),
    ],
    cache: CacheOption = None,
) -> None:
    """Set the quota, now and for later mounts; evicts at once if need be.

    Examples:  lazyfs cache limit 20000  ·  lazyfs cache limit 500 --cache DIR
    """
    with _open(cache) as opened:
        opened.set_limit(None if megabytes < 0 else megabytes * MIB)


def fsck_(
    cache: CacheOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Drop what is damaged.")] = False,
    json: JsonOption = False,
) -> None:
    """Check every cached object; exit code 50 if something is wrong and was not repaired.

    Examples:  lazyfs cache fsck  ·  lazyfs cache fsck --repair --json
    """
    with _open(cache) as opened, progress_bar("checking") as advance:
        report = fsck(opened, repair=repair, progress=advance)
    if json:
        print_json(asdict(report))
    else:
        for problem in report.problems:
            state = "repaired" if problem.repaired else "wrong"
            print_line(f"{state}: {problem.key or 'index'}: {problem.message}")
        print_line(f"{report.objects} objects, {human_bytes(report.bytes)} checked")
    if not report.clean:
        raise typer.Exit(CacheError.exit_code)


def wipe(cache: CacheOption = None) -> None:
    """Drop everything that is not in use, pinned or not.

    Examples:  lazyfs cache wipe  ·  lazyfs cache wipe --cache DIR
    """
    with _open(cache) as opened:
        print_line(f"{opened.wipe()} objects dropped")
