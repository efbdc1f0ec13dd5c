"""The shape of the code: who may import whom, how large things may get, what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazyfs
from lazyfs import errors
from lazyfs.errors import LazyfsError

PACKAGE = Path(lazyfs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    "errors": 0,
    "config": 0,
    "cas": 1,
    "net": 2,
    "repository": 3,
    "publish": 4,
    "fuse": 4,
    "cli": 5,
}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
ONLY_HERE = {
    "pyfuse3": {"fuse/session.py", "fuse/transport.py"},
    "requests": {"net"},
    "urllib3": {"net"},
    "minio": {"publish/s3_client.py", "publish/s3_credentials.py"},
    "typer": {"cli"},
    "rich": {"cli"},
}
"""Libraries that one place alone may know, as prefixes of module paths."""


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if module == "lazyfs")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_downwards(path: Path) -> None:
    here = name(path).partition("/")[0].removesuffix(".py")
    if here not in LAYERS:
        assert here == "__init__"
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "lazyfs" and len(parts) > 1 and parts[1] in LAYERS:
            allowed = parts[1] == here or LAYERS[parts[1]] < LAYERS[here] or LAYERS[parts[1]] == 0
            assert allowed, f"{here} imports {module}"


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_has_one_home(library: str) -> None:
    users = {
        name(path)
        for path in MODULES
        if any(module.partition(".")[0] == library for module in imports(path))
    }
    assert users
    homes = ONLY_HERE[library]
    assert all(any(user.startswith(home) for home in homes) for user in users), users


def test_modules_stay_small() -> None:
    lengths = {name(path): path.read_text().count("\n") for path in MODULES}
    assert {n: length for n, length in lengths.items() if length > MAX_MODULE_LINES} == {}
    assert sorted(lengths.values())[len(lengths) // 2] < 200


def test_functions_stay_small() -> None:
    found = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES and not is_list_of_options(node):
                    found[f"{name(path)}:{node.name}"] = length
    assert found == {}


def is_list_of_options(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether most of a function is its signature: the options of a command."""
    return node.body[0].lineno - node.lineno > MAX_FUNCTION_LINES // 2


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` ran in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_package_loads_nothing_before_it_is_used() -> None:
    new = loaded("import lazyfs") - loaded("")
    assert new <= {"lazyfs", *sys.stdlib_module_names}


def test_the_library_needs_no_fuse_and_no_command_line() -> None:
    found = loaded("import lazyfs; lazyfs.Repository; lazyfs.Revision")
    assert not found & {"pyfuse3", "typer", "rich"}


def test_the_command_line_explains_itself_without_loading_the_rest() -> None:
    code = "from lazyfs.cli.main import run\ntry: run(['--version'])\nexcept SystemExit: pass"
    assert not loaded(code) & {"pyfuse3"}


def test_the_public_names() -> None:
    assert sorted(lazyfs.__all__) == [
        "Digest", "LazyfsError", "Node", "Repository", "Revision", "Tag", "__version__",
    ]  # fmt: skip
    assert all(getattr(lazyfs, public) for public in lazyfs.__all__)
    with pytest.raises(AttributeError):
        lazyfs.nothing  # noqa: B018


def family(kind: type[LazyfsError] = LazyfsError) -> Iterator[type[LazyfsError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("lazyfs."):
            yield from family(child)


def test_all_errors_are_in_one_place() -> None:
    elsewhere = {kind.__name__ for kind in family() if kind.__module__ != errors.__name__}
    assert elsewhere == set()


def test_exit_codes_are_distinct_and_leave_room_for_those_of_shells() -> None:
    codes = [kind.exit_code for kind in family()]
    assert len(codes) == len(set(codes))
    assert all(code == 1 or 10 <= code < 120 for code in codes)


def test_the_table_of_errors_in_the_source_is_true() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for kind in family():
        (line,) = (
            line
            for line in lines
            if line.replace("│", " ").lstrip(" ├└─").startswith(f"{kind.__name__} ")
        )
        assert line.replace("│", " ").lstrip(" ├└─").split()[1] == str(kind.exit_code)
