"""The HTTP session: pooled connections, no environment proxies, connections that can be cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import requests
import requests.adapters
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from lazyfs.net.proxies import DIRECT
from lazyfs.net.watchdog import WatchedHTTPConnection, WatchedHTTPSConnection

MAX_REDIRECTS = 4
"""As upstream follows, if redirects are allowed at all."""

GRID_CERTIFICATES = "/etc/grid-security/certificates"


class _WatchedHTTPPool(HTTPConnectionPool):
    ConnectionCls = WatchedHTTPConnection


class _WatchedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = WatchedHTTPSConnection


_POOLS = {"http": _WatchedHTTPPool, "https": _WatchedHTTPSPool}


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **kwargs: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def make_session(*, connections: int, user_agent: str, system_ca: bool) -> requests.Session:
    """A session for ``connections`` parallel transfers.

    Args:
        connections: Pool size.
        user_agent: Sent with every request.
        system_ca: Verify TLS peers with the system's certificates; otherwise with the grid's
            directory where it exists (upstream's default).
    """
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = MAX_REDIRECTS
    session.headers.clear()
    session.headers.update({"User-Agent": user_agent, "Connection": "Keep-Alive"})
    session.headers["Accept-Encoding"] = "identity"
    session.verify = ca_location(os.environ, system_ca=system_ca)
    adapter = _Adapter(pool_connections=connections, pool_maxsize=connections, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def ca_location(environ: Mapping[str, str], *, system_ca: bool) -> str | bool:
    """The CA bundle or directory that TLS peers are verified with; True: the system's."""
    if system_ca:
        return environ.get("SSL_CERT_FILE") or True
    named = environ.get("X509_CERT_BUNDLE") or environ.get("X509_CERT_DIR")
    if named:
        return named
    return GRID_CERTIFICATES if os.path.isdir(GRID_CERTIFICATES) else True  # noqa: PTH112


def proxy_argument(proxy: str) -> dict[str, str]:
    """What `requests` wants to be told about ``proxy``."""
    return {} if proxy == DIRECT else {"http": proxy, "https": proxy}
