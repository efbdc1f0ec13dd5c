"""The program as a whole: help, exit codes, output that cannot be written, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import typer
from support.commands import invoke, invoke_ok
from support.mounts import LAZYFS
from support.publishing import PublishedRepository, make_repository

import lazyfs
from lazyfs.cli.main import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, MODULES, make_app
from lazyfs.errors import ConfigError, ObjectMissing


def commands(app: typer.Typer, *above: str) -> Iterator[tuple[str, ...]]:
    """All commands, as words."""
    for command in app.registered_commands:
        yield *above, str(command.name)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, *above, str(group.name))


COMMANDS = sorted(commands(make_app()))


ODD = "caf\udce9"
"""A name that is no UTF-8."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return make_repository(tmp_path_factory.mktemp("program"), {ODD: b"odd", "file": b"content"})


@pytest.fixture
def ls(repository: PublishedRepository, tmp_path: Path) -> list[str]:
    """A command that prints something."""
    options = ["--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache")]
    return ["ls", str(repository.root), *options]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_two_examples(words: tuple[str, ...]) -> None:
    text = " ".join(invoke_ok(*words, "--help").text.split())
    name = re.escape(" ".join(["lazyfs", *words[:1]]))
    assert "Examples: " in text
    assert len(re.findall(name, text)) >= 3


def test_the_list_of_commands_is_complete() -> None:
    names = {words[0] for words in COMMANDS}
    assert names == {
        *("mount", "umount", "mounts", "ls", "cat", "stat", "cp", "find", "info", "tags"),
        *("check", "cache", "ctl", "publish", "serve", "config"),
    }
    assert {words[1] for words in COMMANDS if words[0] == "cache"} >= {
        *("list", "pin", "evict", "limit", "fsck", "wipe"),
    }


@pytest.mark.parametrize(("module", "names"), MODULES.items())
def test_a_command_is_made_of_its_module_alone(module: str, names: tuple[str, ...]) -> None:
    assert {words[0] for words in commands(make_app(names[0]))} == set(names), module


@pytest.mark.parametrize(
    ("words", "needless"),
    [
        ("import lazyfs", "trio pyfuse3 requests typer cryptography sqlite3"),
        ("from lazyfs.cli.main import make_app; make_app('config')", "trio pyfuse3 requests"),
        ("from lazyfs.cli.main import make_app; make_app('ls')", "trio pyfuse3 lazyfs.publish"),
    ],
)
def test_nothing_needless_is_loaded(words: str, needless: str) -> None:
    code = f"import sys; {words}; print(*(set({needless.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_help_shows_groups_and_examples() -> None:
    text = invoke_ok("--help").text
    assert all(group in text for group in ("Reading", "Mounting", "Cache", "Publishing", "Tools"))
    assert "Examples:" in text
    assert invoke_ok("-h").text == text


def test_the_version() -> None:
    assert invoke_ok("--version").text == f"lazyfs {lazyfs.__version__}\n"


@pytest.mark.parametrize("words", [("nonsense",), ("ls",), ("ls", "a.b", "--nonsense"), ("cache",)])
def test_wrong_usage(words: tuple[str, ...]) -> None:
    assert invoke(*words).code == EXIT_USAGE


def test_output_that_cannot_be_written(ls: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*LAZYFS, *ls], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == EXIT_FAILED
    assert done.stderr == "lazyfs: No space left on device: standard output\n"


def test_a_reader_that_goes_away(ls: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*LAZYFS, *ls], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == EXIT_FAILED
    assert done.stderr == ""


def test_closed_streams(ls: list[str]) -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *LAZYFS, *ls], check=False)
    assert done.returncode == 0


def test_an_interrupt_ends_a_server(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with subprocess.Popen(
        [*LAZYFS, "serve", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().rpartition(" at ")[2].strip()
        assert requests.get(f"{url}/file", timeout=10).content == b"content"
        server.send_signal(signal.SIGINT)
        assert server.wait(10) in (0, EXIT_INTERRUPTED)
        assert "Traceback" not in server.stderr.read()


def test_the_help_of_the_server_says_what_it_can() -> None:
    text = invoke_ok("serve", "--help").text
    assert all(word in text for word in ("Range", "Cache-Control", "TLS"))


def test_serving_what_cannot_be_served(tmp_path: Path) -> None:
    assert invoke("serve", str(tmp_path / "none")).code == ConfigError.exit_code
    done = invoke("serve", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert done.code == ConfigError.exit_code
    assert "192.0.2.1" in done.err
    assert invoke("serve", str(tmp_path), "--port", "70000").code == EXIT_USAGE


def test_config_show_tells_values_and_origins(
    repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVMFS_TIMEOUT", "7")
    words = ("config", "show", str(repository.root), "--set", "CVMFS_MAX_RETRIES=3")
    found = json.loads(invoke_ok(*words, "--json").out)
    assert found["CVMFS_TIMEOUT"] == {"value": "7", "origin": "environment"}
    assert found["CVMFS_MAX_RETRIES"] == {"value": "3", "origin": "command line"}
    assert found["CVMFS_KCACHE_TIMEOUT"] == {"value": "60", "origin": "default"}
    assert "CVMFS_TIMEOUT=7    # from environment\n" in invoke_ok(*words).text


def test_config_check(repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAZYFS_CVMFS2", "LAZYFS_BENCH_CVMFS2"):
        monkeypatch.delenv(name, raising=False)
    words = ("config", "check", str(repository.root))
    assert invoke_ok(*words, "--pubkey", str(repository.pubkey)).text == "OK\n"
    odd = invoke_ok(*words, "--pubkey", str(repository.pubkey), "--set", "CVMFS_TIMEOTU=1")
    assert odd.text.startswith("warning: CVMFS_TIMEOTU")
    wrong = invoke(*words, "--set", "CVMFS_TIMEOUT=soon", "--json")
    assert wrong.code == ConfigError.exit_code
    assert "CVMFS_TIMEOUT" in json.loads(wrong.out)["errors"][0]


def test_config_show_prints_what_there_is_before_it_complains(
    repository: PublishedRepository,
) -> None:
    done = invoke("config", "show", "nowhere.example.org", "--set", "CVMFS_X=1")
    assert done.code == ConfigError.exit_code
    assert "no server for this repository" in done.err
    assert "CVMFS_X=1    # from command line" in done.text
    wrong = ("--set", "CVMFS_TIMEOUT=x", "--json")
    done = invoke("config", "show", str(repository.root), *wrong)
    assert done.code == ConfigError.exit_code
    assert json.loads(done.out)["CVMFS_TIMEOUT"] == {"value": "x", "origin": "command line"}


def test_a_revision_asked_for_wins_over_one_that_is_configured(
    ls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVMFS_ROOT_HASH", "00" * 20)
    assert invoke(*ls).code == ObjectMissing.exit_code
    assert "file" in invoke_ok(*ls, "--tag", "trunk").out.decode(errors="replace")


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_poor_locale_costs_characters_only(ls: list[str], locale: str) -> None:
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*words: str) -> bytes:
        return subprocess.run(
            [*LAZYFS, *words], env=environment, capture_output=True, check=True
        ).stdout

    assert b"Usage: lazyfs ls" in run("ls", "--help")
    assert run("stat", *ls[1:], ODD).startswith(b"        path: /" + os.fsencode(ODD) + b"\n")
    assert os.fsencode(ODD) in run(*ls).split(b"\n")
    assert json.loads(run(*ls, "--json"))[0]["path_hex"] == (b"/" + os.fsencode(ODD)).hex()


def test_help_shows_brackets_and_gives_each_example_its_line() -> None:
    lines = invoke_ok("ctl", "--help").text.split("\n")
    assert "[get|set MB]" in " ".join(" ".join(lines).split())
    assert "lazyfs ctl /mnt/data status" in [line.strip() for line in lines]
    assert "lazyfs umount /mnt/data" in [x.strip() for x in invoke_ok("--help").text.split("\n")]


@pytest.mark.parametrize("command", ["cp", "check"])
def test_progress_is_shown_on_a_terminal_only(
    repository: PublishedRepository, tmp_path: Path, command: str
) -> None:
    words = [
        str(repository.root),
        "/",
        *([str(tmp_path / "copy"), "-r"] if command == "cp" else []),
    ]
    options = ["--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache")]
    assert invoke_ok(command, *words, *options).err == ""
    controller, terminal = os.openpty()
    words += ["--resume"] if command == "cp" else []
    environment = os.environ | {"TERM": "xterm"}
    run = [*LAZYFS, command, *words, *options]
    subprocess.run(run, stdout=subprocess.DEVNULL, stderr=terminal, env=environment, check=True)
    os.close(terminal)
    shown = os.read(controller, 1 << 16).decode()
    os.close(controller)
    assert {"cp": "copying", "check": "checking"}[command] in shown
    assert "100%" in shown
