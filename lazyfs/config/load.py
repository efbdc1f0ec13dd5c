"""`load_settings`: from parameters in files, environment and options to typed settings."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from lazyfs.config.files import (
    CONFIG_ROOT,
    config_repository_folder,
    read_common,
    read_defaults,
    read_repository,
)
from lazyfs.config.parameters import NOT_SET, Parameters
from lazyfs.config.settings import (
    MIB,
    CacheSettings,
    MountSettings,
    NetworkSettings,
    RepositorySettings,
    RevisionChoice,
    TrustSettings,
    XattrVisibility,
)
from lazyfs.config.source import Source, parse_source
from lazyfs.errors import ConfigError

PREFIXES = ("CVMFS_", "LAZYFS_")


def load_parameters(
    repo: str,
    *,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config_root: Path = CONFIG_ROOT,
) -> tuple[Source, Parameters]:
    """The repository that ``repo`` stands for, and all parameters that count for it.

    Raises:
        ConfigError: ``repo`` names nothing, or a file cannot be read.
    """
    environment = os.environ if environ is None else environ
    parameters = Parameters(environ=environment)
    read_defaults(config_root, parameters)
    _read_environment(environment, parameters)
    # The configuration repository itself is configured without it.
    source = parse_source(repo, parameters.text("CVMFS_DEFAULT_DOMAIN"))
    shared = config_repository_folder(parameters, but=source.fqrn)
    read_common(config_root, parameters, shared)
    _read_environment(environment, parameters)
    source = parse_source(repo, parameters.text("CVMFS_DEFAULT_DOMAIN"))
    read_repository(config_root, source.fqrn, parameters, shared)
    _read_environment(environment, parameters)
    if source.server is not None:
        parameters.set("CVMFS_SERVER_URL", source.server, "command line")
    for name, value in (overrides or {}).items():
        parameters.set(name, value, "command line")
    # Whoever names a server by hand needs no proxy, but gets the one that is configured.
    by_hand = parameters.values.get("CVMFS_SERVER_URL", NOT_SET).origin == "command line"
    if by_hand and not parameters.text("CVMFS_HTTP_PROXY"):
        parameters.set("CVMFS_HTTP_PROXY", "DIRECT", "default")
    organisation = source.fqrn.partition(".")[0]
    parameters.substitute({"@fqrn@": source.fqrn, "@org@": organisation})
    return source, parameters


def _read_environment(environ: Mapping[str, str], parameters: Parameters) -> None:
    for name, value in environ.items():
        if name.startswith(PREFIXES):
            parameters.set(name, value, "environment")


def load_settings(
    repo: str,
    *,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config_root: Path = CONFIG_ROOT,
) -> RepositorySettings:
    """The settings for reading ``repo``.

    Args:
        repo: A repository name, a URL that ends in one, or a folder.
        overrides: Parameters set by hand; they win.
        environ: Instead of the process environment.
        config_root: Instead of ``/etc/cvmfs``.

    Raises:
        ConfigError: a parameter is missing or cannot be used.
    """
    environment = os.environ if environ is None else environ
    source, parameters = load_parameters(
        repo, overrides=overrides, environ=environment, config_root=config_root
    )
    return settings_from(source.fqrn, parameters, environment)


def settings_from(
    fqrn: str, parameters: Parameters, environ: Mapping[str, str]
) -> RepositorySettings:
    """Typed settings from parameters; defaults in force are noted in ``parameters``.

    Raises:
        ConfigError: a parameter is missing or cannot be used.
    """
    _check_strict(fqrn, parameters)
    watermark = parameters.integer("CVMFS_CATALOG_WATERMARK", 256, low=1)
    return RepositorySettings(
        fqrn=fqrn,
        network=_network(parameters),
        cache=_cache(parameters, environ),
        external=_external(parameters),
        trust=_trust(parameters),
        revision=_revision(parameters),
        mount=_mount(parameters),
        catalog_watermark=watermark,
        catalog_memory=parameters.integer("LAZYFS_CATALOG_MEMORY", 32, low=1) * MIB,
        symlink_variables=_symlink_variables(fqrn, parameters, environ),
    )


def _check_strict(fqrn: str, parameters: Parameters) -> None:
    listed = [word.strip() for word in parameters.text("CVMFS_REPOSITORIES").split(",")]
    if parameters.boolean("CVMFS_STRICT_MOUNT", default=False) and fqrn not in listed:
        raise ConfigError(
            f"{fqrn} is not in CVMFS_REPOSITORIES, and CVMFS_STRICT_MOUNT is set",
            hint="add it there",
        )


def _list(text: str, separator: str = ";") -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(separator) if word.strip())


def _network(parameters: Parameters) -> NetworkSettings:
    servers = _list(parameters.text("CVMFS_SERVER_URL"))
    if not servers:
        raise ConfigError(
            "no server for this repository",
            hint="set CVMFS_SERVER_URL, give --server, or name the repository by its URL",
        )
    proxies = parameters.text("CVMFS_HTTP_PROXY")
    if not proxies:
        raise ConfigError(
            "no proxy is configured", hint="set CVMFS_HTTP_PROXY or --proxy; DIRECT means none"
        )
    return _network_settings(parameters, servers, proxies, "CVMFS_")


def _external(parameters: Parameters) -> NetworkSettings | None:
    servers = _list(parameters.text("CVMFS_EXTERNAL_URL"))
    if not servers:
        return None
    proxies = parameters.text("CVMFS_EXTERNAL_HTTP_PROXY", "DIRECT")
    return _network_settings(parameters, servers, proxies, "CVMFS_EXTERNAL_")


def _network_settings(
    parameters: Parameters, servers: tuple[str, ...], proxies: str, prefix: str
) -> NetworkSettings:
    get = parameters
    timeout = get.seconds("CVMFS_TIMEOUT", 5, low=0.01)
    timeout_direct = get.seconds("CVMFS_TIMEOUT_DIRECT", 10, low=0.01)
    return NetworkSettings(
        servers=servers,
        proxies=proxies,
        fallback_proxies=get.text(f"{prefix}FALLBACK_PROXY"),
        timeout=get.seconds(f"{prefix}TIMEOUT", timeout, low=0.01),
        timeout_direct=get.seconds(f"{prefix}TIMEOUT_DIRECT", timeout_direct, low=0.01),
        low_speed_limit=get.integer("CVMFS_LOW_SPEED_LIMIT", 1024, low=0),
        max_retries=get.integer("CVMFS_MAX_RETRIES", 1, low=0, high=100),
        backoff_init=get.seconds("CVMFS_BACKOFF_INIT", 2),
        backoff_max=get.seconds("CVMFS_BACKOFF_MAX", 10),
        proxy_reset_after=get.seconds("CVMFS_PROXY_RESET_AFTER", 300),
        host_reset_after=get.seconds("CVMFS_HOST_RESET_AFTER", 1800),
        deadline=get.seconds("LAZYFS_FETCH_DEADLINE", 60, low=0.01),
        max_servers=get.integer(f"{prefix}MAX_SERVERS", 0, low=0),
        use_geoapi=get.boolean("CVMFS_USE_GEOAPI", default=False),
        proxy_template=get.text("CVMFS_PROXY_TEMPLATE"),
        proxy_shard=get.boolean("CVMFS_PROXY_SHARD", default=False),
        follow_redirects=get.boolean("CVMFS_FOLLOW_REDIRECTS", default=False),
        system_ca=get.boolean("CVMFS_USE_SSL_SYSTEM_CA", default=False),
        connections=get.integer("LAZYFS_CONNECTIONS", 16, low=1, high=256),
    )


def default_cache_directory(environ: Mapping[str, str]) -> Path:
    """Where the cache lies if nothing says otherwise.

    Raises:
        ConfigError: the user has no home.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/lazyfs")
    base = environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "lazyfs"
    try:
        return Path(environ.get("HOME") or Path.home()) / ".cache" / "lazyfs"
    except RuntimeError:  # no HOME, and a user id that is nobody's
        raise ConfigError(
            "there is no home directory for the cache", hint="give --cache, or set HOME"
        ) from None


def cache_settings(environ: Mapping[str, str], *, config_root: Path = CONFIG_ROOT) -> CacheSettings:
    """The cache that is configured for all repositories.

    Raises:
        ConfigError: a parameter cannot be used.
    """
    parameters = Parameters(environ=environ)
    read_defaults(config_root, parameters)
    _read_environment(environ, parameters)
    shared = config_repository_folder(parameters, optional=True)
    read_common(config_root, parameters, shared)
    _read_environment(environ, parameters)
    return _cache(parameters, environ)


def _cache(parameters: Parameters, environ: Mapping[str, str]) -> CacheSettings:
    base = parameters.text("CVMFS_CACHE_BASE")
    if not parameters.values.get("CVMFS_CACHE_DIR", NOT_SET).text:
        below = _below_base(base, parameters) if base else None
        parameters.set("CVMFS_CACHE_DIR", str(below or default_cache_directory(environ)), "default")
    directory = parameters.text("CVMFS_CACHE_DIR")
    quota = parameters.integer("CVMFS_QUOTA_LIMIT", 4000, low=-1)
    return CacheSettings(
        Path(directory),
        limit=None if quota < 0 else quota * MIB,
        min_free=parameters.integer("LAZYFS_CACHE_MIN_FREE", 0, low=0) * MIB,
    )


def _below_base(base: str, parameters: Parameters) -> Path | None:
    """The cache below CVMFS_CACHE_BASE, unless that is the system's and not for this user.

    Upstream's own default.conf sets it, for mounts that root makes; others have a home.
    """
    directory = Path(base) / "lazyfs"
    by_hand = parameters.values["CVMFS_CACHE_BASE"].origin in ("environment", "command line")
    if by_hand or os.geteuid() == 0:
        return directory
    there = next(
        (path for path in (directory, *directory.parents) if os.access(path, os.F_OK)), "/"
    )
    return directory if os.access(there, os.W_OK) else None


def _trust(parameters: Parameters) -> TrustSettings:
    keys = parameters.text("CVMFS_PUBLIC_KEY")
    folder = parameters.text("CVMFS_KEYS_DIR", "/etc/cvmfs/keys")
    blacklists = [parameters.text("CVMFS_BLACKLIST", "/etc/cvmfs/blacklist")]
    config_repository = parameters.text("CVMFS_CONFIG_REPOSITORY")
    if config_repository:
        mount_dir = parameters.text("CVMFS_MOUNT_DIR", "/cvmfs")
        blacklists.append(f"{mount_dir}/{config_repository}/etc/cvmfs/blacklist")
    paths = _list(keys, ":") if keys else (folder,)
    return TrustSettings(
        public_keys=tuple(Path(path) for path in paths),
        blacklists=tuple(Path(path) for path in blacklists),
        allow_rollback=parameters.boolean("LAZYFS_ALLOW_ROLLBACK", default=False),
        allow_expired=parameters.boolean("LAZYFS_ALLOW_EXPIRED", default=False),
    )


def _revision(parameters: Parameters) -> RevisionChoice:
    root_hash = parameters.text("CVMFS_ROOT_HASH") or None
    tag = parameters.text("CVMFS_REPOSITORY_TAG") or None
    date = parameters.text("CVMFS_REPOSITORY_DATE") or None
    if root_hash:
        return RevisionChoice(root_hash=root_hash)
    return RevisionChoice(tag=tag) if tag else RevisionChoice(date=date)


def _mount(parameters: Parameters) -> MountSettings:
    get = parameters
    return MountSettings(
        kcache_timeout=get.seconds("CVMFS_KCACHE_TIMEOUT", 60),
        claim_ownership=get.boolean("CVMFS_CLAIM_OWNERSHIP", default=False),
        uid=_optional_id(get, "LAZYFS_UID"),
        gid=_optional_id(get, "LAZYFS_GID"),
        uid_map=_optional_path(get, "CVMFS_UID_MAP"),
        gid_map=_optional_path(get, "CVMFS_GID_MAP"),
        umask=_octal(get, "LAZYFS_UMASK"),
        world_readable=get.boolean("CVMFS_WORLD_READABLE", default=False),
        check_permissions=get.boolean("CVMFS_CHECK_PERMISSIONS", default=True),
        suid=get.boolean("CVMFS_SUID", default=False),
        allow_other=get.boolean("LAZYFS_ALLOW_OTHER", default=False),
        xattr_visibility=_visibility(get),
        protected_xattrs=_list(get.text("CVMFS_XATTR_PROTECTED_XATTRS"), ","),
        privileged_gids=_gids(get),
        max_ttl=get.integer("CVMFS_MAX_TTL", 0, low=0) * 60,
        auto_update=get.boolean("CVMFS_AUTO_UPDATE", default=True),
        read_ahead_kib=get.integer("LAZYFS_READ_AHEAD", 4096, low=0, high=65536),
        prefetch_chunks=get.integer("LAZYFS_PREFETCH_CHUNKS", 4, low=0, high=64),
        known_nodes=get.integer("LAZYFS_KNOWN_NODES", 131_072, low=1024),
    )


def _visibility(parameters: Parameters) -> XattrVisibility:
    words = [choice.value for choice in XattrVisibility]
    word = parameters.text("CVMFS_MAGIC_XATTRS_VISIBILITY", "rootonly").lower()
    if word not in words:
        raise parameters.error("CVMFS_MAGIC_XATTRS_VISIBILITY", f"write one of {', '.join(words)}")
    return XattrVisibility(word)


def _optional_path(parameters: Parameters, name: str) -> Path | None:
    text = parameters.text(name)
    return Path(text) if text else None


def _optional_id(parameters: Parameters, name: str) -> int | None:
    return parameters.integer(name, 0, low=0, high=0xFFFFFFFE) if parameters.text(name) else None


def _octal(parameters: Parameters, name: str) -> int:
    try:
        mask = int(parameters.text(name, "0"), 8)
    except ValueError:
        raise parameters.error(name, "write an octal number such as 022") from None
    if not 0 <= mask <= 0o777:
        raise parameters.error(name, "write an octal number from 0 to 777")
    return mask


def _gids(parameters: Parameters) -> tuple[int, ...]:
    name = "CVMFS_XATTR_PRIVILEGED_GIDS"
    try:
        return tuple(int(word) for word in _list(parameters.text(name), ","))
    except ValueError:
        raise parameters.error(name, "write numbers separated by commas") from None


def _symlink_variables(
    fqrn: str, parameters: Parameters, environ: Mapping[str, str]
) -> dict[str, str]:
    """What the real client has in its environment: parameters over the process environment."""
    if parameters.boolean("CVMFS_SERVER_CACHE_MODE", default=False):
        return {}
    known = {name: value.text for name, value in parameters.values.items() if value.text}
    return {**environ, **known, "CVMFS_FQRN": fqrn, "CVMFS_ARCH": platform.machine()}
