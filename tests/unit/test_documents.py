"""What the documents promise is there, and what is there is in the documents."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from lazyfs.cli.main import make_app
from lazyfs.config.load import load_parameters, settings_from
from lazyfs.errors import LazyfsError
from lazyfs.fuse.magic import PROVIDERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md"])
REFERENCE = DOCS / "reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:lazyfs|tests|docs|benchmarks)/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


def family(kind: type[LazyfsError] = LazyfsError) -> Iterator[type[LazyfsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


def test_every_error_is_explained() -> None:
    content = (REFERENCE / "errors.md").read_text()
    for kind in family():
        row = rf"`{kind.__name__}` \| {kind.exit_code} \| {errno.errorcode[kind.errno]} \| \w"
        assert re.search(row, content), kind.__name__


def commands() -> dict[str, set[str]]:
    """The options of each command."""
    found: dict[str, set[str]] = {}

    def visit(command: object, words: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, f"{words} {name}")
        if not hasattr(command, "commands"):
            options = [p for p in command.params if p.param_type_name == "option"]  # type: ignore[attr-defined]
            found[words] = {o for p in options for o in (*p.opts, *p.secondary_opts)} - {
                "--help",
                "-h",
            }

    visit(typer.main.get_command(make_app()), "lazyfs")
    return found


COMMANDS = commands()
SHARED = COMMANDS["lazyfs cat"]


def test_no_command_is_missing_from_the_reference_and_none_is_too_much() -> None:
    content = (REFERENCE / "cli.md").read_text()
    assert re.findall(r"^### (.*)$", content, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained(words: str) -> None:
    content = (REFERENCE / "cli.md").read_text()
    shared = content.partition("## Commands")[0]
    (section,) = re.findall(rf"^### {words}$(.*?)(?=^### |\Z)", content, re.DOTALL | re.MULTILINE)
    table = set(re.findall(r"`(-[^`]*)`", section))
    if COMMANDS[words] >= SHARED:
        assert "Takes the shared\noptions" in section or "Takes the shared options" in section
        table |= set(re.findall(r"`(-[^`]*)`", shared))
    assert table >= COMMANDS[words]
    assert set(re.findall(r"^\| `(-[^`]*)`", section, re.MULTILINE)) <= COMMANDS[words]


def test_every_parameter_is_explained() -> None:
    overrides = {"CVMFS_EXTERNAL_URL": "http://x", "CVMFS_CONFIG_REPOSITORY": "a.b"}
    _, parameters = load_parameters(
        "http://host/a.b.c", overrides=overrides, environ={}, config_root=Path("/nowhere")
    )
    settings_from("a.b.c", parameters, {})
    content = (REFERENCE / "parameters.md").read_text()
    names = set(re.findall(r"`((?:CVMFS|LAZYFS)_[A-Z_]+)`", content))
    assert set(parameters.values) - names == set()


def test_every_magic_attribute_is_explained() -> None:
    content = (REFERENCE / "magic-xattrs.md").read_text()
    assert set(re.findall(r"`((?:user|xfsroot)\.\w+)`", content)) == {
        name.decode() for name in PROVIDERS
    }
