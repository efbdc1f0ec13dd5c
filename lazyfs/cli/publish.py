"""Publishing a directory as a repository."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.cli.options import JsonOption
from lazyfs.cli.output import human_bytes, print_json, print_line, progress_bar
from lazyfs.config.files import check_fqrn
from lazyfs.errors import ConfigError
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import DEFAULT_TTL, Publisher
from lazyfs.publish.transaction import PublishResult
from lazyfs.publish.signing import WHITELIST_DAYS
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.ingest import TreeOptions

FqrnArgument = Annotated[str, typer.Argument(metavar="FQRN", help="The repository's name.")]
TargetArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The repository's folder, as a web server serves it.")
]
KeysOption = Annotated[Path, typer.Option("--keys", help="Folder with the repository's keys.")]
HashOption = Annotated[str, typer.Option("--hash", help="sha1, rmd160 or shake128.")]
TTL_HELP = "Seconds until clients look for a new revision."
HASHES = ("sha1", "rmd160", "shake128")


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Publish a directory as a signed repository.", no_args_is_help=True)
    group.command("keys")(keys)
    group.command("init")(init)
    group.command("dir")(dir_)
    group.command("resign")(resign)
    app.add_typer(group, name="publish", rich_help_panel="Publishing")


def _publisher(
    folder: Path,
    fqrn: str,
    key_folder: Path,
    *,
    algorithm: str | None = None,
    ttl: int | None = None,
    chunks: str | None = None,
) -> Publisher:
    if algorithm is not None and algorithm not in HASHES:
        raise ConfigError(f"unknown hash {algorithm!r}", hint=", ".join(HASHES))
    return Publisher(
        DirectoryTarget(folder),
        RepositoryKeys.load(key_folder, fqrn),
        fqrn,
        algorithm=Algorithm[algorithm.upper()] if algorithm is not None else None,
        sizes=_chunk_sizes(chunks),
        ttl=ttl,
    )


def _chunk_sizes(text: str | None) -> ChunkSizes:
    if text is None:
        return ChunkSizes()
    try:
        low, average, high = (int(word) << 10 for word in text.split(","))
    except ValueError:
        raise ConfigError(f"not chunk sizes: {text!r}", hint="write MIN,AVG,MAX in KiB") from None
    return ChunkSizes(low, average, high)


def keys(
    fqrn: FqrnArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys are written.")],
    json: JsonOption = False,
) -> None:
    """Make the keys of a new repository: FQRN.masterkey, .pub, .key and .crt.

    Examples:  lazyfs publish keys data.example.org keys  ·  lazyfs publish keys REPO ~/keys
    """
    RepositoryKeys.generate(check_fqrn(fqrn)).save(folder, fqrn)
    if json:
        print_json({"fqrn": fqrn, "public_key": str(folder / f"{fqrn}.pub")})
        return
    print_line(f"give clients {folder / fqrn}.pub; keep {fqrn}.masterkey away from servers")


def init(
    fqrn: FqrnArgument,
    folder: TargetArgument,
    key_folder: KeysOption = Path("keys"),
    hash_: HashOption = "sha1",
    ttl: Annotated[int, typer.Option(min=1, help=TTL_HELP)] = DEFAULT_TTL,
    json: JsonOption = False,
) -> None:
    """Make a repository with an empty revision.

    Examples:  lazyfs publish init data.example.org /srv/cvmfs/data.example.org --keys keys  ·
    lazyfs publish init REPO DIR --hash shake128 --ttl 60
    """
    _show(_publisher(folder, fqrn, key_folder, algorithm=hash_, ttl=ttl).init(), json=json)


def dir_(
    fqrn: FqrnArgument,
    folder: TargetArgument,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The directory to publish.")],
    key_folder: KeysOption = Path("keys"),
    tag: Annotated[str | None, typer.Option(help="Name the new revision.")] = None,
    message: Annotated[str, typer.Option(help="Description of the tag.")] = "",
    uncompressed: Annotated[
        bool, typer.Option("--uncompressed", help="Store content as it is.")
    ] = False,
    chunks: Annotated[
        str | None, typer.Option(metavar="MIN,AVG,MAX", help="Chunk sizes in KiB.")
    ] = None,
    ttl: Annotated[int | None, typer.Option(min=1, help=f"{TTL_HELP} Default: as before.")] = None,
    json: JsonOption = False,
) -> None:
    """Publish a directory as the whole content of a new revision.

    A directory with a file .cvmfscatalog gets a catalog of its own.

    Examples:  lazyfs publish dir data.example.org /srv/cvmfs/data.example.org tree --keys keys  ·
    lazyfs publish dir REPO DIR tree --tag v1 --json
    """
    publisher = _publisher(folder, fqrn, key_folder, ttl=ttl, chunks=chunks)
    codec = Codec.NONE if uncompressed else Codec.ZLIB
    with progress_bar("publishing") as advance:
        options = TreeOptions(
            codec=lambda path: codec, progress=lambda files, size: advance(files, 0)
        )
        result = publisher.publish(source, options=options, tag=tag, description=message)
    _show(result, json=json)


def resign(
    fqrn: FqrnArgument,
    folder: TargetArgument,
    key_folder: KeysOption = Path("keys"),
    days: Annotated[int, typer.Option(min=1, help="How long it shall hold.")] = WHITELIST_DAYS,
) -> None:
    """Renew the whitelist before it expires.

    Examples:  lazyfs publish resign data.example.org DIR --keys keys  ·
    lazyfs publish resign data.example.org DIR --days 60
    """
    _publisher(folder, fqrn, key_folder).renew_whitelist(days=days)


def _show(result: PublishResult, *, json: bool) -> None:
    if json:
        print_json({**asdict(result), "root_hash": str(result.root_hash)})
        return
    print_line(
        f"revision {result.revision}: {result.files} files,"
        f" {human_bytes(result.file_bytes)}, {result.catalogs} catalogs;"
        f" {result.new_objects} new objects, {human_bytes(result.new_bytes)}"
    )
