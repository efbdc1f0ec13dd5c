"""Parameters: ``/etc/cvmfs``-style files, parsed without running a shell, origins kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.config.conditions import Conditionals
from lazyfs.errors import ConfigError

_ASSIGNMENT = re.compile(r"(?:(?:export|readonly|eval)\s+)*([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_RETURN = re.compile(r"(return|exit)(\s+\d+)?")
_NO_EFFECT = re.compile(r":|(export|readonly)(\s+\w+)+")
_TRUE = frozenset(("yes", "on", "1", "true"))
_FALSE = frozenset(("no", "off", "0", "false", ""))
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Value:
    """What a parameter is set to, and where."""

    text: str
    origin: str
    """A file with line number, ``environment``, ``command line`` or ``default``."""


NOT_SET = Value("", "default")


@dataclass(slots=True)
class Parameters:
    """Parameters by name, later settings over earlier ones."""

    values: dict[str, Value] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """What was passed over, for ``lazyfs config check``."""

    environ: Mapping[str, str] = field(default_factory=dict)
    """Where ``$NAME`` comes from if no parameter has the name."""

    def set(self, name: str, text: str, origin: str) -> None:
        """Set one parameter."""
        self.values[name] = Value(text, origin)

    def text(self, name: str, default: str = "") -> str:
        """The value as text; ``default`` is remembered as the value in force."""
        return self.values.setdefault(name, Value(default, "default")).text

    def boolean(self, name: str, *, default: bool) -> bool:
        """The value as yes or no.

        Raises:
            ConfigError: it is neither.
        """
        word = self.text(name, "yes" if default else "no").lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise self.error(name, "write yes or no")

    def integer(self, name: str, default: int, *, low: int, high: int = 1 << 62) -> int:
        """The value as a whole number between ``low`` and ``high``.

        Raises:
            ConfigError: it is none.
        """
        try:
            number = int(self.text(name, str(default)))
        except ValueError:
            raise self.error(name, "write a whole number") from None
        if not low <= number <= high:
            raise self.error(name, f"write a number from {low} to {high}")
        return number

    def seconds(self, name: str, default: float, *, low: float = 0.0) -> float:
        """The value as seconds, at least ``low``.

        Raises:
            ConfigError: it is no such number.
        """
        try:
            number = float(self.text(name, f"{default:g}"))
        except ValueError:
            raise self.error(name, "write a number of seconds") from None
        if not low <= number < 1e9:
            raise self.error(name, f"write at least {low:g} seconds")
        return number

    def error(self, name: str, hint: str) -> ConfigError:
        """An error about one parameter that says where it was set."""
        value = self.values[name]
        return ConfigError(f"{name}={value.text!r} (from {value.origin}) cannot be used", hint=hint)

    def expand(self, text: str) -> str:
        """``text`` with ``$NAME`` and ``${NAME}`` filled in; what is not set is empty."""

        def known(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            found = self.values.get(name)
            return found.text if found else self.environ.get(name, "")

        return _VARIABLE.sub(known, text)

    def substitute(self, replacements: Mapping[str, str]) -> None:
        """Replace ``@fqrn@`` and the like in all values."""
        for name, value in self.values.items():
            text = value.text
            for mark, word in replacements.items():
                text = text.replace(mark, word)
            self.values[name] = Value(text, value.origin)


def read_file(path: Path, parameters: Parameters) -> None:
    """Add what one file sets; a missing file sets nothing.

    Raises:
        ConfigError: it cannot be read or is no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigError(f"cannot read: {exc.strerror}", path=str(path)) from exc
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError("longer than 1 MiB", path=str(path))
    parse_text(content.decode("utf-8", "surrogateescape"), str(path), parameters)


def parse_text(content: str, origin: str, parameters: Parameters) -> None:
    """Add what ``content`` sets: ``NAME=value`` lines, ``#`` comments, ``$NAME`` references.

    No shell is ever run. Conditional blocks count where `Conditionals` can decide them; what else
    needs a shell is passed over with a warning.
    """
    blocks = Conditionals(parameters.expand)
    for number, raw in enumerate(content.split("\n"), 1):
        where = f"{origin}:{number}"
        for part in blocks.statements(raw.partition("#")[0].strip()):
            undecided, statement = blocks.follow(part)
            if undecided:
                parameters.warnings.append(f"{where}: conditional block passed over")
            if not statement or not blocks.active:
                continue
            if _RETURN.fullmatch(statement):
                return
            _read_statement(statement, where, parameters)


def _read_statement(statement: str, where: str, parameters: Parameters) -> None:
    if match := _ASSIGNMENT.fullmatch(statement):
        parameters.set(match[1], _value(match[2], where, parameters), where)
    elif not _NO_EFFECT.fullmatch(statement):
        parameters.warnings.append(f"{where}: not an assignment: {statement[:60]}")


def _value(raw: str, where: str, parameters: Parameters) -> str:
    text = raw.strip().removesuffix(";").rstrip()
    literal = len(text) >= 2 and text[0] == text[-1] == "'"
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if literal:
        return text
    if "$(" in text or "`" in text:
        parameters.warnings.append(f"{where}: command substitution is not run")
        return text
    return parameters.expand(text)
