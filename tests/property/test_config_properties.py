from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from lazyfs.config.load import load_settings
from lazyfs.config.parameters import Parameters, parse_text
from lazyfs.config.source import parse_source
from lazyfs.errors import ConfigError
from lazyfs.fuse.options import parse_options

PLAIN = st.text(st.characters(exclude_characters="#'\"$`;\n\r\\", exclude_categories=["Cs"]))
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)


@given(st.text())
@example("if\nfi\nA=$A${A}")
@example("A='")
def test_any_text_is_parsed_or_warned_of(content: str) -> None:
    parameters = Parameters()
    parse_text(content, "file", parameters)
    lines = [line for line in content.split("\n") if line.partition("#")[0].strip()]
    assert len(parameters.values) <= len(lines)


@given(st.dictionaries(NAMES, PLAIN.map(str.strip)))
def test_what_is_written_plainly_is_read_as_it_is(values: dict[str, str]) -> None:
    parameters = Parameters()
    parse_text("".join(f'{n}="{v}"\n' for n, v in values.items()), "file", parameters)
    assert {name: value.text for name, value in parameters.values.items()} == values


@given(st.text())
@example("a=b,c")
@example('a="')
@example("\\")
def test_any_mount_options_are_read_or_refused(text: str) -> None:
    try:
        found = parse_options(text)
    except ConfigError:
        return
    assert all(isinstance(value, str) for value in found.overrides.values())


@given(NAMES, st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs"])))
def test_a_quoted_value_is_taken_whole(name: str, value: str) -> None:
    option = f"CVMFS_{name}"
    assert parse_options(f'{option}="{value}",suid').overrides[option] == value


@given(st.text())
@example("http://[")
@example("file://[x")
@example("/\0")
def test_any_repository_argument_is_understood_or_refused(text: str) -> None:
    try:
        source = parse_source(text, "example.org")
    except ConfigError:
        return
    assert source.fqrn


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "CVMFS_TIMEOUT",
                "CVMFS_QUOTA_LIMIT",
                "LAZYFS_UMASK",
                "CVMFS_SERVER_URL",
                "CVMFS_SUID",
                "CVMFS_XATTR_PRIVILEGED_GIDS",
                "CVMFS_MAX_TTL",
                "LAZYFS_UID",
                "CVMFS_PUBLIC_KEY",
            ]
        ),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_any_values_make_settings_or_are_refused(environ: dict[str, str]) -> None:
    try:
        found = load_settings("a.b.c", environ=environ, config_root=Path("/nowhere"))
    except ConfigError:
        return
    assert found.fqrn == "a.b.c"
