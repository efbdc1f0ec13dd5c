"""The network: servers, proxies, fail-over, retries, transfers."""
