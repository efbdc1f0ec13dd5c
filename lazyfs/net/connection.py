"""Connections of `urllib3` that open within one bound and that a watch can cut."""

from __future__ import annotations

import socket

import urllib3.connection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from lazyfs.net.connect import connect_within
from lazyfs.net.watchdog import carry


class WatchedHTTPConnection(urllib3.connection.HTTPConnection):
    """A connection that a watch can cut."""

    def _new_conn(self) -> socket.socket:
        return _open(self)

    def _tunnel(self) -> None:
        carry(self.sock)
        super()._tunnel()

    def putrequest(self, *args: object, **kwargs: object) -> None:
        """Begin a request, and let the watch know which socket carries it."""
        super().putrequest(*args, **kwargs)  # type: ignore[arg-type]
        carry(self.sock)


class WatchedHTTPSConnection(urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    def _new_conn(self) -> socket.socket:
        return _open(self)

    def _tunnel(self) -> None:
        carry(self.sock)
        super()._tunnel()

    def putrequest(self, *args: object, **kwargs: object) -> None:
        """Begin a request, and let the watch know which socket carries it."""
        super().putrequest(*args, **kwargs)  # type: ignore[arg-type]
        carry(self.sock)


def _open(connection: urllib3.connection.HTTPConnection) -> socket.socket:
    seconds = connection.timeout
    if not isinstance(seconds, int | float):
        raise ValueError("a connection needs a timeout")
    try:
        return connect_within(
            connection._dns_host,
            connection.port,
            seconds,
            connection.socket_options or (),
            carry,
        )
    except socket.gaierror as exc:
        raise NameResolutionError(connection.host, connection, exc) from exc
    except OSError as exc:
        raise NewConnectionError(connection, str(exc)) from exc


class WatchedHTTPPool(HTTPConnectionPool):
    """Makes watched connections."""

    ConnectionCls = WatchedHTTPConnection


class WatchedHTTPSPool(HTTPSConnectionPool):
    """Makes watched connections over TLS."""

    ConnectionCls = WatchedHTTPSConnection


POOLS = {"http": WatchedHTTPPool, "https": WatchedHTTPSPool}
"""For ``pool_classes_by_scheme``."""
