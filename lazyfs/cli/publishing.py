"""What the commands that publish share: their options, and opening a repository with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar

import typer

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.cli.options import with_options_of
from lazyfs.cli.output import human_bytes, print_json, print_line
from lazyfs.errors import ConfigError, FormatError
from lazyfs.publish.balance import CatalogWeights
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.ingest import Progress, TreeOptions
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.locations import open_target
from lazyfs.publish.owner_map import OwnerMap
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.transaction import PublishResult
from lazyfs.publish.workbench import Workbench
from lazyfs.repository.manifest import MANIFEST_PATH, parse_manifest

P = ParamSpec("P")
R = TypeVar("R")

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPO",
        help="Where the repository lies: a folder, s3://BUCKET/PREFIX or s3+http://HOST/BUCKET/…",
    ),
]
KeysOption = Annotated[
    Path,
    typer.Option("--keys", envvar="LAZYFS_KEYS", help="Folder with the repository's keys."),
]
WaitOption = Annotated[
    float,
    typer.Option("--wait", min=0, help="Seconds to wait while another publisher is at work."),
]
TagOption = Annotated[str | None, typer.Option("--tag", help="Name the new revision.")]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="Description of the tag.")]
TtlOption = Annotated[
    int | None,
    typer.Option("--ttl", min=1, help="Seconds until clients look for a new revision."),
]
AtOption = Annotated[
    str, typer.Option("--at", metavar="PATH", help="A directory of the repository.")
]

HASHES = ("sha1", "rmd160", "shake128")
DEFAULT_KEYS = Path("keys")

_GROUP = "What is written"


@dataclass(frozen=True, slots=True)
class TreeChoice:
    """How a tree is to be published, from the command line."""

    codec: Codec
    xattrs: bool
    external: bool
    weights: CatalogWeights | None
    sizes: ChunkSizes | None
    owners: OwnerMap

    def options(self, progress: Progress) -> TreeOptions:
        """For a transaction."""
        return TreeOptions(
            codec=lambda path: self.codec,
            xattrs=self.xattrs,
            external=self.external,
            weights=self.weights,
            progress=progress,
        )


def _tree(
    uncompressed: Annotated[
        bool,
        typer.Option("--uncompressed", help="Store content as it is.", rich_help_panel=_GROUP),
    ] = False,
    no_xattrs: Annotated[
        bool,
        typer.Option("--no-xattrs", help="Leave extended attributes out.", rich_help_panel=_GROUP),
    ] = False,
    external: Annotated[
        bool,
        typer.Option(
            "--external",
            help="Store no content: it is served from elsewhere, by path.",
            rich_help_panel=_GROUP,
        ),
    ] = False,
    chunks: Annotated[
        str | None,
        typer.Option(metavar="MIN,AVG,MAX", help="Chunk sizes in KiB.", rich_help_panel=_GROUP),
    ] = None,
    autocatalogs: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Split catalogs with more than N entries; 0: never.",
            rich_help_panel=_GROUP,
        ),
    ] = CatalogWeights().maximum,
    owner: Annotated[
        str | None,
        typer.Option(metavar="UID:GID", help="One owner for all.", rich_help_panel=_GROUP),
    ] = None,
    uid_map: Annotated[
        Path | None,
        typer.Option(help="Map users: a file of 'FROM TO' lines.", rich_help_panel=_GROUP),
    ] = None,
    gid_map: Annotated[
        Path | None, typer.Option(help="The same for groups.", rich_help_panel=_GROUP)
    ] = None,
) -> TreeChoice:
    if owner is not None and (uid_map or gid_map):
        raise ConfigError("give either --owner or maps")
    return TreeChoice(
        Codec.NONE if uncompressed or external else Codec.ZLIB,
        not no_xattrs,
        external,
        _weights(autocatalogs),
        chunk_sizes(chunks),
        OwnerMap.parse(owner) if owner is not None else OwnerMap.read(uid_map, gid_map),
    )


def _weights(maximum: int) -> CatalogWeights | None:
    if not maximum:
        return None
    return CatalogWeights(maximum, min(CatalogWeights().minimum, maximum))


def chunk_sizes(text: str | None) -> ChunkSizes | None:
    """The sizes in ``MIN,AVG,MAX``, KiB.

    Raises:
        ConfigError: they are none.
    """
    if text is None:
        return None
    try:
        low, average, high = (int(word) << 10 for word in text.split(","))
    except ValueError:
        raise ConfigError(f"not chunk sizes: {text!r}", hint="write MIN,AVG,MAX in KiB") from None
    return ChunkSizes(low, average, high)


def with_tree_options(command: Callable[Concatenate[TreeChoice, P], R]) -> Callable[..., R]:
    """``command`` with the options of trees."""
    return with_options_of(_tree, command)


def repository_name(target: UploadTarget, location: str) -> str:
    """What the repository is called: as its manifest says, else as its place is named."""
    document = target.read(MANIFEST_PATH)
    if document is None:
        return location.partition("?")[0].rstrip("/").rpartition("/")[2]
    try:
        return parse_manifest(document.content).fqrn
    except FormatError as exc:
        raise FormatError(exc.message, object="manifest", path=target.name) from exc


def open_publisher(
    location: str,
    keys: Path,
    *,
    fqrn: str | None = None,
    algorithm: Algorithm | None = None,
    ttl: int | None = None,
    sizes: ChunkSizes | None = None,
) -> Publisher:
    """The publisher of the repository at ``location``."""
    target = open_target(location)
    name = fqrn or repository_name(target, location)
    return Publisher(
        target, RepositoryKeys.load(keys, name), name, algorithm=algorithm, sizes=sizes, ttl=ttl
    )


def bench_of(publisher: Publisher) -> Workbench:
    """Where the repository's open transaction lies, if one is open."""
    return Workbench.of(publisher.ledger.target.name)


def algorithm_named(name: str) -> Algorithm:
    """The hash algorithm of that name.

    Raises:
        ConfigError: there is none, or it names no objects.
    """
    if name not in HASHES:
        raise ConfigError(f"unknown hash {name!r}", hint=", ".join(HASHES))
    return Algorithm[name.upper()]


def show_result(result: PublishResult, *, json: bool) -> None:
    """Print what a publish did."""
    if json:
        print_json({**asdict(result), "root_hash": str(result.root_hash)})
        return
    print_line(
        f"revision {result.revision}: {result.files} files, {human_bytes(result.file_bytes)};"
        f" {result.new_catalogs} of {result.catalogs} catalogs written,"
        f" {result.new_objects} new objects, {human_bytes(result.new_bytes)}"
    )
