"""The entry point: groups of commands, errors as one line, exit codes."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import lazyfs
from lazyfs.errors import LazyfsError

MODULES = {
    "read": ("ls", "cat", "stat", "cp", "find"),
    "info": ("info", "tags"),
    "check": ("check",),
    "mount": ("mount", "umount", "mounts"),
    "ctl": ("ctl",),
    "cache": ("cache",),
    "config": ("config",),
    "publish": ("publish",),
    "serve": ("serve",),
}
"""Modules below ``lazyfs.cli``, each with ``register(app)``, and their commands, in the order of
``--help``."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_EPILOG = """\
Examples:  lazyfs ls http://host/cvmfs/data.example.org --pubkey data.pub  ·
lazyfs mount data.example.org /mnt/data  ·  lazyfs ctl /mnt/data status  ·
lazyfs umount /mnt/data

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted; others tell the kind of failure,
see docs/reference/errors.md.
"""


def make_app(command: str = "") -> typer.Typer:
    """The command line: all of it, or as much as is needed to run ``command``."""
    app = typer.Typer(
        name="lazyfs",
        help="Read CernVM-FS repositories lazily: list, copy and check them, or mount them.",
        epilog=_laid_out(_EPILOG),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    needed = [name for name, commands in MODULES.items() if command in commands]
    for name in needed or MODULES:
        importlib.import_module(f"lazyfs.cli.{name}").register(app)
    _lay_out_commands(app)
    return app


def _lay_out_commands(app: typer.Typer) -> None:
    for command in app.registered_commands:
        command.help = _laid_out(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _lay_out_commands(group.typer_instance)


def _laid_out(text: str) -> str:
    """A docstring for the screen: paragraphs run on, each example has its line.

    Brackets are escaped, typer takes them for markup.
    """
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    for number, words in enumerate(paragraphs):
        if words.startswith("Examples:"):
            examples = words.removeprefix("Examples:").split("·")
            paragraphs[number] = "\n".join(["Examples:", *(e.strip() for e in examples)])
    return escape("\n\n".join(paragraphs))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lazyfs {lazyfs.__version__}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Read CernVM-FS repositories lazily: list, copy and check them, or mount them."""


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _prepare_streams()
    try:
        words = sys.argv[1:] if arguments is None else arguments
        make_app(*words[:1])(words, prog_name="lazyfs")
    except LazyfsError as exc:
        sys.stderr.write(f"lazyfs: {exc}\n")
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except OSError as exc:
        # Everything else that can fail has an error of ours; what is left is the output.
        _give_up_output()
        sys.stderr.write(f"lazyfs: {exc.strerror or exc}: {exc.filename or 'standard output'}\n")
        sys.exit(EXIT_FAILED)


def _prepare_streams() -> None:
    """Whoever closes our streams wants to see nothing; a poor locale costs characters only."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def _give_up_output() -> None:
    """What is buffered cannot be written; Python would try again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    run()
