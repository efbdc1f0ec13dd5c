"""Variables in symlink targets: ``$(NAME)`` and ``$(NAME:-default)``."""

from __future__ import annotations

from collections.abc import Mapping


def expand(target: bytes, variables: Mapping[str, str]) -> bytes:
    """``target`` with its variables replaced; a name that is not set gives its default or nothing.

    The first ``)`` ends a variable, results are not expanded again, and what is no variable stays
    as it is.
    """
    if b"$(" not in target:
        return target
    pieces = []
    at = 0
    while (start := target.find(b"$(", at)) >= 0:
        end = target.find(b")", start + 2)
        if end < 0:
            break
        name, has_default, default = target[start + 2 : end].partition(b":-")
        value = variables.get(name.decode(errors="surrogateescape"))
        pieces.append(target[at:start])
        if value is not None:
            pieces.append(value.encode(errors="surrogateescape"))
        elif has_default:
            pieces.append(default)
        at = end + 1
    pieces.append(target[at:])
    return b"".join(pieces)
