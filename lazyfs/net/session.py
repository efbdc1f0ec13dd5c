"""The HTTP session: pooled connections, no environment proxies, connections that can be cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
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


class HttpSession:
    """Pooled connections that many threads use.

    Requests go to the adapter at once: what a `requests.Session` adds for browsing (cookies,
    redirects that read whole bodies, merged settings) costs a third of a small transfer.

    Args:
        connections: Pool size: transfers in parallel.
        user_agent: Sent with every request.
        system_ca: Verify TLS peers with the system's certificates; otherwise with the grid's
            directory where it exists (upstream's default).
    """

    def __init__(self, *, connections: int, user_agent: str, system_ca: bool) -> None:
        self._headers = {
            "User-Agent": user_agent,
            "Connection": "Keep-Alive",
            "Accept-Encoding": "identity",
        }
        self._verify = ca_location(os.environ, system_ca=system_ca)
        self._adapter = _Adapter(
            pool_connections=connections, pool_maxsize=connections, max_retries=0
        )

    def get(
        self, url: str, *, headers: Mapping[str, str], proxy: str, timeout: float
    ) -> requests.Response:
        """The answer, its body unread; never a redirect followed.

        Args:
            url: ``http`` or ``https``.
            headers: Beside the session's own.
            proxy: ``DIRECT`` or a URL.
            timeout: Seconds to connect, and as many for each read.

        Raises:
            requests.RequestException: nobody answered.
        """
        prepared = requests.PreparedRequest()
        prepared.prepare("GET", url, headers={**self._headers, **headers})
        return self._adapter.send(
            prepared,
            stream=True,
            timeout=(timeout, timeout),
            verify=self._verify,
            proxies={} if proxy == DIRECT else {"http": proxy, "https": proxy},
        )

    def close(self) -> None:
        """Close idle connections."""
        self._adapter.close()


def ca_location(environ: Mapping[str, str], *, system_ca: bool) -> str | bool:
    """The CA bundle or directory that TLS peers are verified with; True: the system's."""
    if system_ca:
        return environ.get("SSL_CERT_FILE") or True
    named = environ.get("X509_CERT_BUNDLE") or environ.get("X509_CERT_DIR")
    if named:
        return named
    return GRID_CERTIFICATES if os.path.isdir(GRID_CERTIFICATES) else True  # noqa: PTH112
