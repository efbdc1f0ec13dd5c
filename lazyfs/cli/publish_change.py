"""Changing a repository: ingest, sync, rm; at once, or within an open transaction."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import print_json, print_line, progress_bar
from lazyfs.cli.publishing import (
    DEFAULT_KEYS,
    AtOption,
    KeysOption,
    MessageOption,
    TagOption,
    TargetArgument,
    TreeChoice,
    TtlOption,
    WaitOption,
    bench_of,
    open_publisher,
    show_result,
    with_tree_options,
)
from lazyfs.errors import ConfigError
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.owner_map import MappedSource
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.source import Source
from lazyfs.publish.tar_source import TarSource
from lazyfs.publish.transaction import Transaction


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("ingest")(with_tree_options(ingest))
    group.command("sync")(with_tree_options(sync))
    group.command("rm")(rm)
    group.command("transaction")(transaction)
    group.command("commit")(commit)
    group.command("abort")(abort)


def ingest(
    choice: TreeChoice,
    repo: TargetArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…", help="Directories and tar files (plain, gzip, zstd, …); - is stdin."
        ),
    ],
    *,
    at: AtOption = "/",
    replace: Annotated[bool, typer.Option("--replace", help="Remove what is there first.")] = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Remove this path in the same transaction."),
    ] = None,
    keys: KeysOption = DEFAULT_KEYS,
    tag: TagOption = None,
    message: MessageOption = "",
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Add directories and tar files below a directory of the repository.

    What is there and has no new form stays, unless --replace is given. While a transaction is
    open the change becomes part of it, otherwise it is published at once.

    Examples:  lazyfs publish ingest /srv/cvmfs/data.example.org app.tar.gz --at /app/v2  ·
    zstd -dc layer.tar.zst | lazyfs publish ingest REPO - --at /layer --replace  ·
    lazyfs publish ingest REPO new --at /sw --delete /sw/old --tag v2
    """

    def change(transaction: Transaction) -> None:
        for path in delete or ():
            transaction.remove(path)
        for number, source in enumerate(sources):
            opened = _source(source, choice)
            transaction.ingest(opened, at, replace=replace and number == 0)

    publisher = open_publisher(repo, keys, sizes=choice.sizes)
    _change(publisher, choice, change, tag=tag, message=message, wait=wait, json=json)


def _source(text: str, choice: TreeChoice) -> Source:
    path = Path(text)
    if text != "-" and path.is_dir():
        return DirectorySource(path, xattrs=choice.xattrs, owners=choice.owners)
    if text != "-" and not path.exists():
        raise ConfigError("no such source", path=text)
    return MappedSource(_archive(text), choice.owners)


def _archive(text: str) -> TarSource:
    if text == "-":
        return TarSource(sys.stdin.buffer, name="standard input")
    return TarSource(Path(text))


def sync(
    choice: TreeChoice,
    repo: TargetArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="The directory.")
    ],
    *,
    at: AtOption = "/",
    keys: KeysOption = DEFAULT_KEYS,
    tag: TagOption = None,
    message: MessageOption = "",
    ttl: TtlOption = None,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Make a subtree of the repository equal to a directory: add, change, remove.

    Files of the same size and time as before are not read. A directory with a file .cvmfscatalog
    gets a catalog of its own, and so do those that .cvmfsdirtab names.

    Examples:  lazyfs publish sync /srv/cvmfs/data.example.org tree  ·
    lazyfs publish sync s3://bucket/data.example.org build --at /app/nightly --tag nightly-7
    """
    source = DirectorySource(folder, xattrs=choice.xattrs, owners=choice.owners)
    publisher = open_publisher(repo, keys, sizes=choice.sizes)
    _change(
        publisher,
        choice,
        lambda transaction: transaction.sync(source, at),
        tag=tag,
        message=message,
        ttl=ttl,
        wait=wait,
        json=json,
    )


def rm(
    repo: TargetArgument,
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="What is removed.")],
    *,
    keys: KeysOption = DEFAULT_KEYS,
    tag: TagOption = None,
    message: MessageOption = "",
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Remove paths, with all below them, from the next revision.

    Older revisions keep them until they are collected.

    Examples:  lazyfs publish rm REPO /app/v1  ·  lazyfs publish rm REPO /a /b --tag cleaned
    """

    def change(transaction: Transaction) -> None:
        for path in paths:
            transaction.remove(path)

    _change(
        open_publisher(repo, keys), None, change, tag=tag, message=message, wait=wait, json=json
    )


def _change(
    publisher: Publisher,
    choice: TreeChoice | None,
    change: Callable[[Transaction], None],
    *,
    tag: str | None,
    message: str,
    wait: float,
    json: bool,
    ttl: int | None = None,
) -> None:
    """Change the open transaction, or publish the change at once if none is open."""
    bench = bench_of(publisher)
    with _options(choice) as options:
        if bench.is_open:
            if tag is not None or ttl is not None:
                raise ConfigError(
                    "a transaction is open", hint="give --tag and --ttl to 'publish commit'"
                )
            with bench.change(publisher, options=options) as opened:
                change(opened)
            _tell({"open": True}, "changed; publish it with 'lazyfs publish commit'", json=json)
            return
        with publisher.transaction(options=options, wait=wait) as opened:
            opened.check_tag(tag)
            change(opened)
            if not (opened.tree.is_changed or tag or ttl):
                head = opened.head.manifest
                facts = {"revision": head.revision, "changed": False}
                _tell(facts, f"nothing to publish after revision {head.revision}", json=json)
                return
            result = opened.commit(tag=tag, description=message, ttl=ttl)
    show_result(result, json=json)


@contextlib.contextmanager
def _options(choice: TreeChoice | None) -> Iterator[TreeOptions]:
    with progress_bar("publishing") as advance:

        def progress(files: int, size: int) -> None:
            advance(files, 0)

        yield choice.options(progress) if choice is not None else TreeOptions()


def _tell(facts: Mapping[str, object], line: str, *, json: bool) -> None:
    if json:
        print_json(facts)
    else:
        print_line(line)


def transaction(
    repo: TargetArgument,
    *,
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Open a transaction: the next changes wait for 'commit', others are kept out until then.

    It belongs to this user on this machine, and ends by itself a day after its last command.

    Examples:  lazyfs publish transaction REPO  ·
    lazyfs publish ingest REPO new.tar --at /app  ·  lazyfs publish commit REPO --tag v2
    """
    publisher = open_publisher(repo, keys)
    state = bench_of(publisher).begin(publisher, wait=wait)
    facts = {"open": True, "revision": state.revision}
    _tell(facts, f"a transaction is open after revision {state.revision}", json=json)


def commit(
    repo: TargetArgument,
    *,
    keys: KeysOption = DEFAULT_KEYS,
    tag: TagOption = None,
    message: MessageOption = "",
    ttl: TtlOption = None,
    json: JsonOption = False,
) -> None:
    """Publish the open transaction as one new revision.

    Examples:  lazyfs publish commit REPO  ·  lazyfs publish commit REPO --tag v2 -m "new app"
    """
    publisher = open_publisher(repo, keys)
    result = bench_of(publisher).commit(publisher, tag=tag, description=message, ttl=ttl)
    show_result(result, json=json)


def abort(
    repo: TargetArgument,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take the right to publish away from whoever has it, too."),
    ] = False,
    keys: KeysOption = DEFAULT_KEYS,
    json: JsonOption = False,
) -> None:
    """Give up the open transaction; the repository stays as it is.

    Examples:  lazyfs publish abort REPO  ·  lazyfs publish abort REPO --force
    """
    publisher = open_publisher(repo, keys)
    bench_of(publisher).abort(publisher, force=force)
    _tell({"open": False}, "the transaction is given up", json=json)
