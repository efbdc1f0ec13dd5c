"""The HTTP session: pooled connections, no environment proxies, connections that can be cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import requests.adapters

from lazyfs.net.connection import POOLS
from lazyfs.net.proxies import DIRECT

GRID_CERTIFICATES = "/etc/grid-security/certificates"


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **kwargs: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Never one: `requests` would read the whole body of a redirect into memory."""
        return None


def make_session(*, connections: int, user_agent: str, system_ca: bool) -> requests.Session:
    """A session for ``connections`` parallel transfers.

    Args:
        connections: Pool size.
        user_agent: Sent with every request.
        system_ca: Verify TLS peers with the system's certificates; otherwise with the grid's
            directory where it exists (upstream's default).
    """
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
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
