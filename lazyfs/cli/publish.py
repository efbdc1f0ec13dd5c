"""Publishing: the group of commands, and making a repository."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli import publish_care, publish_change, publish_revisions
from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import print_json, print_line
from lazyfs.cli.publishing import (
    DEFAULT_KEYS,
    KeysOption,
    TargetArgument,
    algorithm_named,
    open_publisher,
    repository_name,
    show_result,
)
from lazyfs.config.files import check_fqrn
from lazyfs.errors import ConfigError
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.locations import open_target
from lazyfs.publish.publisher import DEFAULT_TTL

MAX_METAINFO = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Make and maintain repositories, in folders and in object stores.",
        no_args_is_help=True,
    )
    group.command("keys")(keys)
    group.command("init")(init)
    publish_change.register(group)
    publish_revisions.register(group)
    publish_care.register(group)
    app.add_typer(group, name="publish", rich_help_panel="Publishing")


def keys(
    fqrn: Annotated[str, typer.Argument(metavar="FQRN", help="The repository's name.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys are written.")],
    json: JsonOption = False,
) -> None:
    """Make the keys of a new repository: FQRN.masterkey, .pub, .key and .crt.

    Examples:  lazyfs publish keys data.example.org keys  ·  lazyfs publish keys REPO ~/keys
    """
    _make_keys(fqrn, folder)
    if json:
        print_json({"fqrn": fqrn, "public_key": str(folder / f"{fqrn}.pub")})


def _make_keys(fqrn: str, folder: Path) -> None:
    RepositoryKeys.generate(check_fqrn(fqrn)).save(folder, fqrn)


def init(
    repo: TargetArgument,
    *,
    fqrn: Annotated[
        str | None,
        typer.Option("--fqrn", help="The repository's name; else the last part of REPO."),
    ] = None,
    key_folder: KeysOption = DEFAULT_KEYS,
    hash_: Annotated[str, typer.Option("--hash", help="sha1, rmd160 or shake128.")] = "sha1",
    ttl: Annotated[
        int, typer.Option(min=1, help="Seconds until clients look for a new revision.")
    ] = DEFAULT_TTL,
    no_gc: Annotated[bool, typer.Option("--no-gc", help="Keep every revision for ever.")] = False,
    metainfo: Annotated[
        Path | None,
        typer.Option("--meta-info", help="JSON about the repository, for people.", dir_okay=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a repository with an empty revision; keys are made if there are none.

    Examples:  lazyfs publish init /srv/cvmfs/data.example.org --keys keys  ·
    lazyfs publish init s3://bucket/data.example.org --hash shake128 --ttl 60
    """
    name = check_fqrn(fqrn or repository_name(open_target(repo), repo))
    if not (key_folder / f"{name}.key").exists():
        _make_keys(name, key_folder)
    publisher = open_publisher(
        repo, key_folder, fqrn=name, algorithm=algorithm_named(hash_), ttl=ttl
    )
    result = publisher.init(
        garbage_collectable=not no_gc,
        metainfo=_read_metainfo(metainfo) if metainfo is not None else None,
    )
    show_result(result, json=json)
    if not json:
        print_line(f"give clients {key_folder / name}.pub; keep {name}.masterkey away from servers")


def _read_metainfo(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        json_text.loads(content)
    except OSError as exc:
        raise ConfigError(f"cannot read: {exc.strerror}", path=str(path)) from exc
    except ValueError as exc:
        raise ConfigError(f"not JSON: {exc}", path=str(path)) from exc
    if len(content) > MAX_METAINFO:
        raise ConfigError("too large for a description", path=str(path))
    return content
