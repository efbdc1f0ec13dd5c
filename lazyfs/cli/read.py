"""Reading without a mount: ls, cat, stat, cp, find."""

from __future__ import annotations

import shutil
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.finding import Predicate, make_predicate
from lazyfs.cli.options import (
    CommonOptions,
    JsonOption,
    RepoArgument,
    encode_path,
    with_common_options,
)
from lazyfs.cli.output import (
    json_path,
    long_line,
    node_facts,
    print_json,
    print_line,
    print_note,
    progress_bar,
    show_path,
    stat_facts,
    stat_lines,
)
from lazyfs.repository.export import export_tree
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

_PANEL = "Reading"
_COPY_BYTES = 1 << 20

PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="A path in the repository.")]
PathsArgument = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Paths in the repository.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (("ls", ls), ("cat", cat), ("stat", stat_), ("cp", cp), ("find", find)):
        app.command(name, rich_help_panel=_PANEL)(with_common_options(command))


def ls(
    common: CommonOptions,
    repo: RepoArgument,
    path: PathArgument = "/",
    *,
    long: Annotated[bool, typer.Option("--long", "-l", help="Show metadata.")] = False,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Show names with a dot too.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="And all below.")] = False,
    json: JsonOption = False,
) -> None:
    """List a directory.

    Examples:  lazyfs ls /srv/cvmfs/data.example.org --pubkey data.pub  ·
    lazyfs ls data.example.org /software -l
    """
    with common.open(repo) as repository:
        revision = repository.current
        nodes = _listing(revision, encode_path(path), recursive=recursive)
        shown = [n for n in nodes if all_ or json or not n.name.startswith(b".")]
        if json:
            print_json([node_facts(node) for node in shown])
            return
        for node in shown:
            if long:
                print_line(long_line(node, revision.readlink(node) if node.is_symlink else None))
            else:
                print_line(show_path(node.path if recursive else node.name or b"/"))


def _listing(revision: Revision, path: bytes, *, recursive: bool) -> list[Node]:
    top = revision.resolve(path)
    if recursive:
        return list(revision.walk(top.path))
    if not top.is_dir:
        return [top]
    return sorted(revision.listdir(top.path), key=lambda node: node.path)


def cat(common: CommonOptions, repo: RepoArgument, paths: PathsArgument) -> None:
    """Write files to standard output.

    Examples:  lazyfs cat data.example.org /README  ·  lazyfs cat DIR /a /b --pubkey k.pub
    """
    with common.open(repo) as repository:
        for path in paths:
            with repository.current.open_file(encode_path(path)) as file:
                shutil.copyfileobj(file, sys.stdout.buffer, _COPY_BYTES)
        sys.stdout.buffer.flush()


def stat_(
    common: CommonOptions,
    repo: RepoArgument,
    paths: PathsArgument,
    *,
    xattrs: Annotated[bool, typer.Option("--xattrs", help="Extended attributes too.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the metadata of paths; links are not followed.

    Examples:  lazyfs stat data.example.org /bin/tool  ·
    lazyfs stat data.example.org / --xattrs --json
    """
    with common.open(repo) as repository:
        revision = repository.current
        nodes = [revision.resolve(encode_path(path), follow=False) for path in paths]
        targets = [revision.readlink(node) if node.is_symlink else None for node in nodes]
        attributes = [revision.xattrs(node) if xattrs else None for node in nodes]
    found = list(zip(nodes, targets, attributes, strict=True))
    if json:
        print_json([stat_facts(*each) for each in found])
        return
    for each in found:
        for line in stat_lines(*each):
            print_line(line)


def cp(
    common: CommonOptions,
    repo: RepoArgument,
    path: PathArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A local path.")],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Copy trees.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the copy at DEST: keep files of the published size and time, replace"
            " others.",
        ),
    ] = False,
) -> None:
    """Copy out of a repository, with modes, times, links and extended attributes.

    Into DEST if that is a directory, else to DEST. What exists is not overwritten. What cannot be
    had (damaged files, devices if you are not root) is named and left out, the rest is copied.

    Examples:  lazyfs cp data.example.org /etc/motd /tmp  ·
    lazyfs cp -r data.example.org /software /opt/software  ·
    lazyfs cp -r --resume data.example.org /software /opt/software
    """
    with common.open(repo) as repository, progress_bar("copying", sizes=True) as advance:
        report = export_tree(
            repository.current,
            encode_path(path),
            destination,
            recursive=recursive,
            resume=resume,
            progress=advance,
        )
    for skipped in report.skipped:
        print_note(f"{show_path(skipped)}: a device, which only root can make; left out")
    for damaged, error in report.damaged:
        print_note(f"{show_path(damaged)}: {error}")
    if report.damaged:
        raise typer.Exit(report.damaged[0][1].exit_code)


def find(
    common: CommonOptions,
    repo: RepoArgument,
    path: PathArgument = "/",
    *,
    name: Annotated[str | None, typer.Option(help="Glob for the last component.")] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="f, d, l, p, s, c or b, several by commas.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="+N larger, -N smaller than N bytes; k, M, G are units.")
    ] = None,
    newer: Annotated[
        str | None, typer.Option(help="Changed after YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ.")
    ] = None,
    null: Annotated[bool, typer.Option("-0", help="End names with NUL.")] = False,
    json: JsonOption = False,
) -> None:
    """Find entries below a path.

    Examples:  lazyfs find data.example.org /lib --name '*.so'  ·
    lazyfs find data.example.org --type f --size +100M
    """
    matches: Predicate = make_predicate(name=name, types=type_, size=size, newer=newer)
    with common.open(repo) as repository:
        top = repository.current.resolve(encode_path(path), follow=False)
        for node in repository.current.walk(top.path):
            if not matches(node):
                continue
            if json:
                print_line(dumps(json_path(node.path)))
            elif null:
                sys.stdout.buffer.write((node.path or b"/") + b"\0")
            else:
                print_line(show_path(node.path))
