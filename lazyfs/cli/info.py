"""Facts about a repository: info, tags."""

from __future__ import annotations

import datetime

import typer

from lazyfs.cli.options import CommonOptions, JsonOption, RepoArgument, with_common_options
from lazyfs.cli.output import human_bytes, print_json, print_line

_PANEL = "Reading"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("info", rich_help_panel=_PANEL)(with_common_options(info))
    app.command("tags", rich_help_panel=_PANEL)(with_common_options(tags))


def info(common: CommonOptions, repo: RepoArgument, *, json: JsonOption = False) -> None:
    """Show revision, trust and size of a repository.

    Examples:  lazyfs info http://host/cvmfs/data.example.org --pubkey data.pub  ·
    lazyfs info data.example.org --json
    """
    with common.open(repo) as repository:
        revision = repository.current
        network = repository.downloader.status()
        whitelist = repository.whitelist
        facts = {
            "fqrn": repository.fqrn,
            "revision": revision.number,
            "root_hash": str(revision.root_hash),
            "tag": revision.tag,
            "published": _time(revision.timestamp),
            "ttl": revision.ttl,
            "whitelist_expires": _time(whitelist.expires.timestamp()) if whitelist else None,
            "server": network.host,
            "proxy": network.proxies.current,
            "offline": repository.offline_reason or None,
            "counters": revision.counters(),
        }
    if json:
        print_json(facts)
        return
    counters = facts.pop("counters")
    assert isinstance(counters, dict)
    for name, value in facts.items():
        print_line(f"{name.replace('_', ' '):>18}: {'' if value is None else value}")
    size = human_bytes(counters["file_size"])
    print_line(
        f"{'content':>18}: {counters['regular']} files, {counters['dir']} directories, {size}"
    )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tags(common: CommonOptions, repo: RepoArgument, *, json: JsonOption = False) -> None:
    """List the named revisions, newest first.

    Examples:  lazyfs tags data.example.org  ·  lazyfs tags DIR --pubkey k.pub --json
    """
    with common.open(repo) as repository:
        found = repository.tags()
    if json:
        print_json(
            [
                {
                    "name": tag.name,
                    "root_hash": str(tag.root_hash),
                    "revision": tag.revision,
                    "timestamp": tag.timestamp,
                    "description": tag.description,
                    "branch": tag.branch,
                }
                for tag in found
            ]
        )
        return
    for tag in found:
        print_line(
            f"{tag.name:<32} {tag.revision:>8} {_time(tag.timestamp)} {tag.root_hash}"
            f"  {tag.description}"
        )
