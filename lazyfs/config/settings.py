"""Typed settings: what the parts of lazyfs are given. Values only; see ``lazyfs.config.load``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How one set of servers is reached. Names in brackets are the ``CVMFS_`` parameters."""

    servers: tuple[str, ...]
    """Base URLs in order of preference, already substituted (SERVER_URL)."""
    proxies: str = "DIRECT"
    """Proxy groups as written: ``;`` fail-over, ``|`` balance (HTTP_PROXY)."""
    fallback_proxies: str = ""
    """(FALLBACK_PROXY)"""
    timeout: float = 5.0
    """Seconds to connect, and of low speed, through a proxy (TIMEOUT)."""
    timeout_direct: float = 10.0
    """The same without a proxy (TIMEOUT_DIRECT)."""
    low_speed_limit: int = 1024
    """Bytes per second below which a transfer is given up (LOW_SPEED_LIMIT)."""
    max_retries: int = 1
    """Repetitions of one URL after a connection failure (MAX_RETRIES)."""
    backoff_init: float = 2.0
    backoff_max: float = 10.0
    proxy_reset_after: float = 300.0
    host_reset_after: float = 1800.0
    deadline: float = 60.0
    """Seconds after which a fetch that has not begun to deliver is given up, whatever is left to
    try; one that delivers above the low-speed limit may go on (``LAZYFS_FETCH_DEADLINE``)."""
    max_servers: int = 0
    """Servers kept after ordering; 0 keeps all (MAX_SERVERS)."""
    use_geoapi: bool = False
    proxy_template: str = ""
    proxy_shard: bool = False
    follow_redirects: bool = False
    system_ca: bool = False
    connections: int = 16
    """Transfers in parallel."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The local cache."""

    directory: Path
    limit: int | None = 4000 * MIB
    """Quota in bytes, temporary files included; None: unmanaged (QUOTA_LIMIT in MB, -1)."""
    min_free: int = 0
    """Bytes of the file system that the cache leaves free (``LAZYFS_CACHE_MIN_FREE``, MB)."""


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Whom to believe."""

    public_keys: tuple[Path, ...] = ()
    """Files, or folders of ``*.pub``, with master keys (PUBLIC_KEY, KEYS_DIR)."""
    blacklists: tuple[Path, ...] = ()
    allow_rollback: bool = False
    """Accept a revision older than this cache has seen."""
    allow_expired: bool = False
    """Accept a whitelist whose time is over."""


@dataclass(frozen=True, slots=True)
class RevisionChoice:
    """Which revision to read; at most one of the three. None of them: the newest, followed live."""

    tag: str | None = None
    date: str | None = None
    """``YYYY-MM-DDTHH:MM:SSZ``"""
    root_hash: str | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether the revision never changes."""
        return any((self.tag, self.date, self.root_hash))


class XattrVisibility(enum.Enum):
    """Where magic extended attributes are listed; reading by name always works."""

    ROOT_ONLY = "rootonly"
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How a mounted repository shows itself."""

    kcache_timeout: float = 60.0
    """Seconds the kernel may answer by itself (KCACHE_TIMEOUT)."""
    claim_ownership: bool = False
    """Show all as owned by ``uid``/``gid`` (CLAIM_OWNERSHIP)."""
    uid: int | None = None
    gid: int | None = None
    uid_map: Path | None = None
    gid_map: Path | None = None
    umask: int = 0
    """Permission bits taken away everywhere."""
    world_readable: bool = False
    check_permissions: bool = True
    suid: bool = False
    allow_other: bool = False
    xattr_visibility: XattrVisibility = XattrVisibility.ROOT_ONLY
    protected_xattrs: tuple[str, ...] = ()
    privileged_gids: tuple[int, ...] = ()
    max_ttl: int = 0
    """Seconds, cap on the catalog's TTL; 0: none (MAX_TTL, there in minutes)."""
    auto_update: bool = True
    read_ahead_kib: int = 4096
    prefetch_chunks: int = 4
    """Chunks fetched ahead of a sequential reader."""
    known_nodes: int = 131_072
    """Files, links and directories that the kernel may remember, about 1 KiB of memory each."""


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """Everything needed to read one repository."""

    fqrn: str
    network: NetworkSettings
    cache: CacheSettings
    external: NetworkSettings | None = None
    trust: TrustSettings = TrustSettings()
    revision: RevisionChoice = RevisionChoice()
    mount: MountSettings = MountSettings()
    catalog_memory: int = 32 * MIB
    """Bytes of open nested catalogs' page caches and rows kept before the oldest are released."""
    catalog_watermark: int = 256
    """Nested catalogs kept open before the oldest are released (CATALOG_WATERMARK)."""
    symlink_variables: dict[str, str] = field(default_factory=dict)
    """Values for ``$(NAME)`` in symlink targets: configuration parameters, then the environment."""
