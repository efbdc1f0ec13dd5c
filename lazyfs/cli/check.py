"""Verifying a whole repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lazyfs.cli.options import (
    CommonOptions,
    JsonOption,
    RepoArgument,
    encode_path,
    with_common_options,
)
from lazyfs.cli.output import (
    human_bytes,
    json_path,
    print_json,
    print_line,
    progress_bar,
    show_path,
)
from lazyfs.errors import VerificationError
from lazyfs.repository.check import check_revision


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", rich_help_panel="Reading")(with_common_options(check))


def check(
    common: CommonOptions,
    repo: RepoArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Check only below this.")] = "/",
    *,
    content: Annotated[bool, typer.Option(help="Fetch and verify file content too.")] = True,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Remember what was verified here, to go on later; a new file, or that of an"
            " earlier run."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Objects in parallel.")] = 8,
    json: JsonOption = False,
) -> None:
    """Verify catalogs, counters and content; exit code 20 if anything is wrong.

    Examples:  lazyfs check http://host/cvmfs/data.example.org --pubkey data.pub  ·
    lazyfs check data.example.org /software --journal /tmp/checked
    """
    with common.open(repo) as repository, progress_bar("checking") as advance:
        report = check_revision(
            repository.current,
            subtree=encode_path(path),
            journal=journal,
            content=content,
            workers=workers,
            progress=advance,
        )
    if json:
        print_json(
            {
                "catalogs": report.catalogs,
                "objects": report.objects,
                "bytes": report.bytes,
                "problems": [
                    {**json_path(p.path), "object": p.object, "message": p.message}
                    for p in report.problems
                ],
            }
        )
    else:
        for problem in report.problems:
            print_line(f"{show_path(problem.path)}: {problem.message}")
        print_line(
            f"{report.catalogs} catalogs, {report.objects} objects,"
            f" {human_bytes(report.bytes)} verified; {len(report.problems)} problems"
        )
    if report.problems:
        raise typer.Exit(VerificationError.exit_code)
