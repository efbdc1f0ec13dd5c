"""Looking after a repository: resign, gc, check, du."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lazyfs.cli.options import JsonOption, encode_path
from lazyfs.cli.output import (
    human_bytes,
    json_path,
    print_json,
    print_line,
    progress_bar,
    show_path,
)
from lazyfs.cli.publishing import (
    DEFAULT_KEYS,
    KeysOption,
    TargetArgument,
    WaitOption,
    open_publisher,
)
from lazyfs.errors import ConfigError
from lazyfs.publish.gc import GcReport, collect_garbage
from lazyfs.publish.gc_roots import GcPolicy
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.signing import WHITELIST_DAYS
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.target_usage import StoredUsage, target_usage
from lazyfs.publish.verify import VerifyOptions, VerifyReport, repair_target, verify_target
from lazyfs.repository.pathhash import normalize
from lazyfs.repository.usage import directory_usage

EXIT_PROBLEMS = 1


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("resign")(resign)
    group.command("gc")(gc)
    group.command("check")(check)
    group.command("du")(du)


def resign(
    repo: TargetArgument,
    *,
    key_folder: KeysOption = DEFAULT_KEYS,
    days: Annotated[int, typer.Option(min=1, help="How long it shall hold.")] = WHITELIST_DAYS,
    new_certificate: Annotated[
        bool,
        typer.Option(
            "--new-certificate",
            help="Make a new repository key and certificate first; the old ones are kept aside.",
        ),
    ] = False,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Sign a new whitelist with the master key, before the old one expires.

    Examples:  lazyfs publish resign REPO --keys keys  ·  lazyfs publish resign REPO --days 60  ·
    lazyfs publish resign REPO --new-certificate
    """
    publisher = open_publisher(repo, key_folder)
    if new_certificate:
        _renew_certificate(publisher, key_folder, days=days, wait=wait)
    else:
        publisher.renew_whitelist(days=days)
    expires = publisher.ledger.whitelist().expires
    if json:
        print_json({"whitelist_expires": expires.isoformat()})
    else:
        print_line(f"the whitelist holds until {expires:%Y-%m-%d %H:%M} UTC")


def _renew_certificate(publisher: Publisher, folder: Path, *, days: int, wait: float) -> None:
    keys = publisher.ledger.keys.with_new_certificate(publisher.ledger.fqrn)
    publisher.renew_certificate(keys, days=days, wait=wait)
    keys.replace_saved(folder, publisher.ledger.fqrn)


def gc(
    repo: TargetArgument,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest revisions stay.")] = 1,
    keep_since: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="All revisions published since then stay, too.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only tell what would be removed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if the repository is not collectable.")
    ] = False,
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Remove what no revision needs any more; tagged revisions stay.

    Examples:  lazyfs publish gc REPO --keep 3 --dry-run  ·
    lazyfs publish gc REPO --keep 10 --keep-since 2026-01-01
    """
    since = keep_since.timestamp() if keep_since is not None else None
    with progress_bar("collecting") as advance:
        report = collect_garbage(
            open_publisher(repo, keys).ledger,
            GcPolicy(keep_last=keep, keep_since=since),
            dry_run=dry_run,
            force=force,
            wait=wait,
            progress=advance,
        )
    if json:
        print_json(_gc_facts(report))
        return
    would = "would be removed" if dry_run else "removed"
    print_line(
        f"{len(report.kept)} revisions stay with {report.kept_objects} objects,"
        f" {human_bytes(report.kept_bytes)}; {len(report.dropped)} revisions,"
        f" {report.removed_objects} objects, {human_bytes(report.removed_bytes)} {would}"
    )


def _gc_facts(report: GcReport) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "kept": [
            {
                "revision": kept.revision.number,
                "root_hash": str(kept.revision.root_hash),
                "reasons": list(kept.reasons),
            }
            for kept in report.kept
        ],
        "dropped": [str(reference.digest) for reference in report.dropped],
        "catalogs": report.catalogs,
        "kept_objects": report.kept_objects,
        "kept_bytes": report.kept_bytes,
        "removed_objects": report.removed_objects,
        "removed_bytes": report.removed_bytes,
    }


def check(
    repo: TargetArgument,
    *,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read catalogs only; look whether objects are there.")
    ] = False,
    tags: Annotated[
        bool, typer.Option("--tags", help="Check all tagged revisions, not only the newest.")
    ] = False,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Make what is damaged or missing again from the tree in DIR."
        ),
    ] = None,
    at: Annotated[
        str, typer.Option("--at", metavar="PATH", help="Where DIR belongs in the repository.")
    ] = "/",
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Remember what was verified, to go on later."),
    ] = None,
    keys: KeysOption = DEFAULT_KEYS,
    wait: WaitOption = 0.0,
    json: JsonOption = False,
) -> None:
    """Check documents, catalogs, counters and every object, where they lie.

    Ends with exit code 1 if something is wrong.

    Examples:  lazyfs publish check REPO  ·  lazyfs publish check REPO --fast --tags  ·
    lazyfs publish check REPO --repair tree
    """
    ledger = open_publisher(repo, keys).ledger
    options = VerifyOptions(content=not fast, tags=tags, journal=journal)
    trusted = ledger.keys.trusted
    with progress_bar("checking") as advance:
        if repair is None:
            report = verify_target(ledger.target, ledger.fqrn, trusted, options, progress=advance)
        else:
            report = repair_target(
                ledger.target,
                ledger.fqrn,
                trusted,
                repair,
                options,
                at=normalize(at),
                wait=wait,
                progress=advance,
            )
    _show_check(report, json=json)
    if report.problems:
        raise typer.Exit(EXIT_PROBLEMS)


def _show_check(report: VerifyReport, *, json: bool) -> None:
    if json:
        print_json(
            {
                "revisions": report.revisions,
                "catalogs": report.catalogs,
                "objects": report.objects,
                "bytes": report.bytes,
                "problems": [
                    {**json_path(p.path), "object": p.object, "message": p.message}
                    for p in report.problems
                ],
                "mended": [
                    {**json_path(m.path), "object": m.object, "why": m.why} for m in report.mended
                ],
            }
        )
        return
    for problem in report.problems:
        named = f" ({problem.object})" if problem.object else ""
        print_line(f"{show_path(problem.path)}: {problem.message}{named}")
    for mended in report.mended:
        print_line(f"{show_path(mended.path)}: made again ({mended.object})")
    print_line(
        f"{report.revisions} revisions, {report.catalogs} catalogs, {report.objects} objects,"
        f" {human_bytes(report.bytes)}: {len(report.problems)} problems"
    )


def du(
    repo: TargetArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A directory.")] = "/",
    *,
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, help="How far below PATH.")] = 1,
    stored: Annotated[
        bool, typer.Option("--stored", help="Count all stored objects, whatever needs them.")
    ] = False,
    keys: KeysOption = DEFAULT_KEYS,
    json: JsonOption = False,
) -> None:
    """Tell how much lies below directories of the newest revision, or in the whole place.

    Examples:  lazyfs publish du REPO  ·  lazyfs publish du REPO /app --depth 2 --json  ·
    lazyfs publish du REPO --stored
    """
    ledger = open_publisher(repo, keys).ledger
    head = ledger.head()
    if stored:
        if path != "/":
            raise ConfigError("--stored counts the whole repository", hint="leave PATH out")
        _show_stored(ledger.target, json=json)
        return
    with opened_store(ledger.target) as store, progress_bar("counting") as advance:
        manifest = head.manifest
        with store.revision(
            ledger.fqrn, manifest.root_catalog, size=manifest.catalog_size
        ) as revision:
            usages = list(
                directory_usage(revision, encode_path(path), depth=depth, progress=advance)
            )
    if json:
        print_json([{**json_path(u.path), "entries": u.entries, "bytes": u.bytes} for u in usages])
        return
    for usage in usages:
        print_line(
            f"{human_bytes(usage.bytes):>12} {usage.entries:>10} entries  {show_path(usage.path)}"
        )


def _show_stored(target: UploadTarget, *, json: bool) -> None:
    with progress_bar("counting") as advance:
        usage = target_usage(target, progress=advance)
    if json:
        kinds = {kind.name.lower(): asdict(stored) for kind, stored in usage.by_kind.items()}
        print_json({"total": asdict(usage.total), "by_kind": kinds, "other": asdict(usage.other)})
        return
    for kind, stored in usage.by_kind.items():
        print_line(_stored_line(kind.name.lower(), stored))
    print_line(_stored_line("in all", usage.total))


def _stored_line(name: str, stored: StoredUsage) -> str:
    return f"{human_bytes(stored.bytes):>12} {stored.objects:>10} objects  {name}"
