"""What a downloader reports about itself."""

from __future__ import annotations

from dataclasses import dataclass

from lazyfs.net.mirrors import HostStatus
from lazyfs.net.proxies import ProxyStatus


@dataclass(frozen=True, slots=True)
class NetworkCounters:
    """What a downloader has done."""

    requests: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    """Time spent in transfers that succeeded, summed over threads."""
    failures: int = 0
    """Attempts that failed."""
    host_switches: int = 0
    proxy_switches: int = 0


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """Servers, proxies, timeouts and counters as they stand."""

    hosts: tuple[HostStatus, ...]
    proxies: ProxyStatus
    timeout: float
    timeout_direct: float
    counters: NetworkCounters

    @property
    def host(self) -> str:
        """The active server."""
        return next(host.url for host in self.hosts if host.active)
