"""Options that all reading commands share, and opening a repository with them."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from lazyfs.config.load import load_settings
from lazyfs.config.settings import RepositorySettings
from lazyfs.errors import ConfigError

if TYPE_CHECKING:
    from lazyfs.repository.repository import Repository

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

RepoArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPO",
        help="A configured name, a URL http(s)://…/NAME, or a folder with .cvmfspublished.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

_GROUP = "Repository"


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """How to reach and trust a repository, and which revision to read."""

    overrides: dict[str, str]
    verbose: bool = False

    def settings(self, repo: str) -> RepositorySettings:
        """The settings for ``repo`` with these options."""
        return load_settings(repo, overrides=self.overrides)

    def open(self, repo: str) -> Repository:
        """``repo``, open with these options."""
        # Half of the time a command takes to start: those that open nothing do without.
        from lazyfs.repository.repository import Repository

        return Repository.from_settings(self.settings(repo))


def _common(
    pubkey: Annotated[
        list[Path] | None,
        typer.Option(
            help="Master public key, a file or a folder of *.pub.", rich_help_panel=_GROUP
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        # Unchecked here: the cache has more to say than that it is not readable.
        typer.Option(help="Directory of the local cache.", readable=False, rich_help_panel=_GROUP),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Base URLs, separated by ';'.", rich_help_panel=_GROUP)
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="Proxies: 'a|b' balances, 'a;b' fails over, DIRECT is none.",
            rich_help_panel=_GROUP,
        ),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Read the revision of this tag.", rich_help_panel=_GROUP)
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            help="Read the newest tagged revision not newer than YYYY-MM-DDTHH:MM:SSZ.",
            rich_help_panel=_GROUP,
        ),
    ] = None,
    root_hash: Annotated[
        str | None,
        typer.Option(
            help="Read the revision with this root catalog; it is then all that is trusted.",
            rich_help_panel=_GROUP,
        ),
    ] = None,
    external_url: Annotated[
        str | None, typer.Option(help="Where external files lie.", rich_help_panel=_GROUP)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Set any CVMFS_ parameter.", rich_help_panel=_GROUP
        ),
    ] = None,
    allow_rollback: Annotated[
        bool,
        typer.Option(
            "--allow-rollback",
            help="Accept a revision older than the cache has seen.",
            rich_help_panel=_GROUP,
        ),
    ] = False,
    allow_expired: Annotated[
        bool,
        typer.Option(
            "--allow-expired", help="Accept an expired whitelist.", rich_help_panel=_GROUP
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to standard error.", rich_help_panel=_GROUP)
    ] = False,
) -> CommonOptions:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if (tag, date, root_hash).count(None) < 2:
        raise ConfigError("give only one of --tag, --date and --root-hash")
    overrides = {
        **_keys(pubkey or []),
        **_given("CVMFS_CACHE_DIR", str(cache.absolute()) if cache else None),
        **_given("CVMFS_SERVER_URL", server),
        **_given("CVMFS_HTTP_PROXY", proxy),
        **_revision(tag, date, root_hash),
        **_given("CVMFS_EXTERNAL_URL", external_url),
        **_given("LAZYFS_ALLOW_ROLLBACK", "yes" if allow_rollback else None),
        **_given("LAZYFS_ALLOW_EXPIRED", "yes" if allow_expired else None),
    }
    return CommonOptions(overrides | dict(map(assignment, set_ or [])), verbose)


def _revision(tag: str | None, date: str | None, root_hash: str | None) -> dict[str, str]:
    """One revision, whatever the configuration fixes."""
    if not (tag or date or root_hash):
        return {}
    return {
        "CVMFS_ROOT_HASH": root_hash or "",
        "CVMFS_REPOSITORY_TAG": tag or "",
        "CVMFS_REPOSITORY_DATE": date or "",
    }


def _given(name: str, value: str | None) -> dict[str, str]:
    return {name: value} if value else {}


def _keys(paths: list[Path]) -> dict[str, str]:
    if not paths:
        return {}
    for path in paths:
        if not path.exists():
            raise ConfigError("no such key", path=str(path))
    if len(paths) == 1 and paths[0].is_dir():
        return {"CVMFS_KEYS_DIR": str(paths[0].absolute()), "CVMFS_PUBLIC_KEY": ""}
    return {"CVMFS_PUBLIC_KEY": ":".join(str(path.absolute()) for path in paths)}


def assignment(text: str) -> tuple[str, str]:
    """The name and value of ``NAME=VALUE``.

    Raises:
        ConfigError: it has another form.
    """
    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise ConfigError(f"not an assignment: {text!r}", hint="write --set NAME=VALUE")
    return name, value


def with_options_of(
    collect: Callable[..., V], command: Callable[Concatenate[V, P], R]
) -> Callable[..., R]:
    """``command`` with further options in its signature, given to it as one value.

    Args:
        collect: Has the options as its parameters, and makes the value of them.
        command: Its first parameter is that value.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(collect, eval_str=True).parameters.values())
    names = [parameter.name for parameter in shared]

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> R:
        value = collect(**{name: kwargs.pop(name) for name in names})
        return command(value, *args, **kwargs)

    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in shared]
    wrapper.__signature__ = inspect.Signature([*own, *keyword])  # type: ignore[attr-defined]
    return wrapper


def with_common_options(command: Callable[Concatenate[CommonOptions, P], R]) -> Callable[..., R]:
    """``command`` with the options that all reading commands share."""
    return with_options_of(_common, command)


def encode_path(path: str) -> bytes:
    """A path from the command line as bytes."""
    return os.fsencode(path)
