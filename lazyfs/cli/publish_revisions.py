"""Revisions and their names: tag, rollback, diff, info."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from lazyfs.cli.options import JsonOption, encode_path
from lazyfs.cli.output import json_path, print_json, print_line, progress_bar, show_path
from lazyfs.cli.publishing import (
    DEFAULT_KEYS,
    KeysOption,
    MessageOption,
    TagOption,
    TargetArgument,
    WaitOption,
    bench_of,
    open_publisher,
)
from lazyfs.publish.known_revision import KnownRevision, find_revision
from lazyfs.publish.lease import current_holder
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.rollback import roll_back
from lazyfs.publish.tag_editor import TagEditor
from lazyfs.publish.target_store import opened_store
from lazyfs.repository.diff import Change, ChangeKind, diff_revisions
from lazyfs.repository.history import Tag
from lazyfs.repository.revision import Revision

_SIGNS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.MODIFIED: "~"}

RevisionArgument = Annotated[
    str, typer.Argument(metavar="REV", help="A tag or a root hash; trunk is the newest revision.")
]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    tags = typer.Typer(help="Names for revisions: add, rm, list.", no_args_is_help=True)
    tags.command("add")(add)
    tags.command("rm")(remove)
    tags.command("list")(list_)
    group.add_typer(tags, name="tag")
    group.command("rollback")(rollback)
    group.command("diff")(diff)
    group.command("info")(info)


def add(
    repo: TargetArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new tag.")],
    *,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Another tag or a root hash; else the newest.")
    ] = None,
    message: MessageOption = "",
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Give a revision a name, which must be free.

    Examples:  lazyfs publish tag add REPO v1  ·
    lazyfs publish tag add REPO stable --revision v1 -m "what users get"
    """
    editor = TagEditor(open_publisher(repo, keys).ledger, wait=wait)
    tag = editor.add(name, revision=revision, description=message)
    if json:
        print_json(tag_facts(tag))
    else:
        print_line(_tag_line(tag))


def remove(
    repo: TargetArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Tags.")],
    *,
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Take tags away; their revisions stay until 'publish gc' collects them.

    Examples:  lazyfs publish tag rm REPO v1  ·  lazyfs publish tag rm REPO old-1 old-2
    """
    removed = TagEditor(open_publisher(repo, keys).ledger, wait=wait).remove(names)
    if json:
        print_json([tag_facts(tag) for tag in removed])


def list_(
    repo: TargetArgument, *, keys: KeysOption = DEFAULT_KEYS, json: JsonOption = False
) -> None:
    """List all tags, the newest revision first.

    Examples:  lazyfs publish tag list REPO  ·  lazyfs publish tag list s3://bucket/REPO --json
    """
    ledger = open_publisher(repo, keys).ledger
    tags = ledger.tags(ledger.head())
    if json:
        print_json([tag_facts(tag) for tag in tags])
        return
    for tag in tags:
        print_line(_tag_line(tag))


def tag_facts(tag: Tag) -> dict[str, Any]:
    """A tag for scripts."""
    return {**asdict(tag), "root_hash": str(tag.root_hash)}


def _tag_line(tag: Tag) -> str:
    when = _when(tag.timestamp)
    return f"{tag.name:24} {tag.revision:6}  {when}  {tag.root_hash}  {tag.description}"


def _when(timestamp: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(timestamp))


def rollback(
    repo: TargetArgument,
    to: Annotated[
        str, typer.Argument(metavar="REV", help="A tag or a root hash; else the revision before.")
    ] = "trunk-previous",
    *,
    tag: TagOption = None,
    message: MessageOption = "",
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Publish the tree of an older revision as the newest one; clients never go back.

    All tags stay where they are.

    Examples:  lazyfs publish rollback REPO  ·  lazyfs publish rollback REPO v1 --tag v1-again
    """
    ledger = open_publisher(repo, keys).ledger
    result = roll_back(ledger, to, tag=tag, description=message, wait=wait)
    if json:
        print_json(
            {
                "revision": result.revision,
                "root_hash": str(result.root_hash),
                "restored": _revision_facts(result.restored),
                "left": _revision_facts(result.left),
            }
        )
        return
    print_line(
        f"revision {result.revision} is what revision {result.restored.number} was;"
        f" revision {result.left.number} is left as trunk-previous"
    )


def _revision_facts(revision: KnownRevision) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "root_hash": str(revision.root_hash),
        "timestamp": revision.timestamp,
        "tag": revision.tag,
    }


def diff(
    repo: TargetArgument,
    old: RevisionArgument,
    new: RevisionArgument = "trunk",
    *,
    path: Annotated[str, typer.Option("--path", help="Only at and below this path.")] = "/",
    keys: KeysOption = DEFAULT_KEYS,
    json: JsonOption = False,
) -> None:
    """Show what differs between two revisions: + added, - removed, ~ changed and how.

    Nested catalogs that both have are not opened.

    Examples:  lazyfs publish diff REPO v1 v2  ·  lazyfs publish diff REPO v1 --path /app --json
    """
    publisher = open_publisher(repo, keys)
    with (
        _revision(publisher, old) as before,
        _revision(publisher, new) as after,
        progress_bar("comparing") as advance,
    ):
        changes = diff_revisions(before, after, encode_path(path), progress=advance)
        if json:
            print_json([_change_facts(change) for change in changes])
            return
        for change in changes:
            what = ", ".join(sorted(aspect.value for aspect in change.what))
            print_line(f"{_SIGNS[change.kind]} {show_path(change.path)}{what and f'  ({what})'}")


def _change_facts(change: Change) -> dict[str, Any]:
    return {
        **json_path(change.path),
        "change": change.kind.value,
        "what": sorted(aspect.value for aspect in change.what),
    }


@contextmanager
def _revision(publisher: Publisher, name: str) -> Iterator[Revision]:
    ledger = publisher.ledger
    with opened_store(ledger.target) as store:
        found = find_revision(ledger, ledger.head(), name, store)
        with store.revision(ledger.fqrn, found.root_hash, size=found.size) as revision:
            yield revision


def info(
    repo: TargetArgument, *, keys: KeysOption = DEFAULT_KEYS, json: JsonOption = False
) -> None:
    """Tell what the repository is at: revision, whitelist, who publishes, open transaction.

    Examples:  lazyfs publish info REPO  ·  lazyfs publish info s3://bucket/REPO --json
    """
    publisher = open_publisher(repo, keys)
    ledger = publisher.ledger
    head = ledger.head()
    manifest, whitelist = head.manifest, ledger.whitelist()
    holder = current_holder(ledger.target)
    facts: dict[str, Any] = {
        "fqrn": ledger.fqrn,
        "place": ledger.target.name,
        "revision": manifest.revision,
        "root_hash": str(manifest.root_catalog),
        "published": _when(manifest.timestamp),
        "ttl": manifest.ttl,
        "garbage_collectable": manifest.garbage_collectable,
        "tags": len(ledger.tags(head)),
        "whitelist_expires": f"{whitelist.expires:%Y-%m-%d %H:%M} UTC",
        "publisher": str(holder) if holder is not None else None,
        "transaction": bench_of(publisher).is_open,
    }
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        if value is not None:
            print_line(f"{name.replace('_', ' '):>20}: {value}")
