"""Opens TCP connections within one bound, however many addresses a name has."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

Options = Sequence[tuple[int, int, int | bytes]]


def connect_within(
    host: str,
    port: int,
    seconds: float,
    options: Options,
    carry: Callable[[socket.socket], None],
) -> socket.socket:
    """A connected socket whose timeout is what is left of ``seconds``; the caller closes it.

    The addresses share the time, so that a black-holed first one leaves some for the second. Only
    the name's resolution is left to the bounds of the system's resolver.

    Args:
        host: Name or address.
        port: TCP port.
        seconds: For all addresses together.
        options: As for ``setsockopt``.
        carry: Is told each socket before it connects, so that somebody else can cut it.

    Raises:
        socket.gaierror: the name does not resolve.
        OSError: no address took the connection; what the last one said.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    end = time.monotonic() + seconds
    error = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(left / (len(addresses) - index))
            carry(sock)
            sock.connect(address)
            sock.settimeout(max(end - time.monotonic(), 0.001))
        except OSError as exc:
            sock.close()
            error = exc
        else:
            return sock
    raise error
