"""Showing and checking the configuration of a repository."""

from __future__ import annotations

import os

import typer

from lazyfs.cli.options import CommonOptions, JsonOption, RepoArgument, with_common_options
from lazyfs.cli.output import print_json, print_line
from lazyfs.config.check import check_parameters
from lazyfs.config.load import load_parameters, settings_from
from lazyfs.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Show and check the configuration.", no_args_is_help=True)
    group.command("show")(with_common_options(show))
    group.command("check")(with_common_options(check))
    app.add_typer(group, name="config", rich_help_panel="Tools")


def show(common: CommonOptions, repo: RepoArgument, *, json: JsonOption = False) -> None:
    """Print every effective value and where it came from.

    Examples:  lazyfs config show data.example.org  ·  lazyfs config show URL --json
    """
    source, parameters = load_parameters(repo, overrides=common.overrides)
    try:
        settings_from(source.fqrn, parameters, os.environ)
    finally:  # what cannot be used is looked for here
        values = sorted(parameters.values.items())
        if json:
            print_json({name: {"value": v.text, "origin": v.origin} for name, v in values})
        else:
            for name, value in values:
                print_line(f"{name}={value.text}    # from {value.origin}")


def check(common: CommonOptions, repo: RepoArgument, *, json: JsonOption = False) -> None:
    """Say what is wrong with the configuration and what to do; exit code 60 if anything is.

    Examples:  lazyfs config check data.example.org  ·  lazyfs config check REPO --pubkey k.pub
    """
    report = check_parameters(repo, common.overrides, os.environ)
    if json:
        print_json({"errors": report.errors, "warnings": report.warnings})
    else:
        for text in report.errors:
            print_line(f"error: {text}")
        for text in report.warnings:
            print_line(f"warning: {text}")
        if not report.errors and not report.warnings:
            print_line("OK")
    if report.errors:
        raise typer.Exit(ConfigError.exit_code)
