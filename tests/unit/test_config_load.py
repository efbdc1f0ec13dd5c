from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazyfs.config.check import check_parameters
from lazyfs.config.load import cache_settings, load_parameters, load_settings
from lazyfs.config.settings import MIB, RepositorySettings, XattrVisibility
from lazyfs.errors import ConfigError

FQRN = "data.example.org"
BASE = {
    "CVMFS_SERVER_URL": "http://one/cvmfs/@fqrn@;http://two/cvmfs/@fqrn@",
    "CVMFS_HTTP_PROXY": "DIRECT",
}

LAYERS = [
    "default.conf",
    "default.d/10-site.conf",
    "default.d/20-site.conf",
    "default.local",
    "domain.d/example.org.conf",
    "domain.d/example.org.local",
    f"config.d/{FQRN}.conf",
    f"config.d/{FQRN}.local",
]
"""Files below ``/etc/cvmfs`` in the order in which they count."""


def settings(root: Path, repo: str = FQRN, **environ: str) -> RepositorySettings:
    return load_settings(repo, environ=BASE | environ, config_root=root)


def write(root: Path, name: str, content: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize("present", range(1, len(LAYERS) + 1))
def test_later_files_win(tmp_path: Path, present: int) -> None:
    for number, name in enumerate(LAYERS[:present]):
        write(tmp_path, name, f"CVMFS_X={number}\nCVMFS_ONLY_{number}=yes\n")
    _, parameters = load_parameters(FQRN, environ=BASE, config_root=tmp_path)
    assert parameters.text("CVMFS_X") == str(present - 1)
    assert parameters.values["CVMFS_X"].origin == f"{tmp_path / LAYERS[present - 1]}:1"
    assert all(parameters.text(f"CVMFS_ONLY_{number}") == "yes" for number in range(present))


def test_the_environment_wins_over_files_and_the_command_line_over_all(tmp_path: Path) -> None:
    for name in LAYERS:
        write(tmp_path, name, "CVMFS_X=file\nCVMFS_Y=file\nCVMFS_Z=file\n")
    environ = BASE | {"CVMFS_X": "environment", "CVMFS_Y": "environment", "OTHER": "ignored"}
    _, found = load_parameters(
        FQRN, overrides={"CVMFS_X": "option"}, environ=environ, config_root=tmp_path
    )
    assert [found.text(f"CVMFS_{n}") for n in "XYZ"] == ["option", "environment", "file"]
    assert found.values["CVMFS_X"].origin == "command line"
    assert found.values["CVMFS_Y"].origin == "environment"
    assert "OTHER" not in found.values


def test_files_of_other_repositories_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "config.d/other.example.org.conf", "CVMFS_X=1")
    write(tmp_path, "domain.d/other.org.conf", "CVMFS_X=1")
    write(tmp_path, "default.d/notes.txt", "CVMFS_X=1")
    _, parameters = load_parameters(FQRN, environ=BASE, config_root=tmp_path)
    assert "CVMFS_X" not in parameters.values


def test_a_name_without_a_dot_gets_the_default_domain(tmp_path: Path) -> None:
    write(tmp_path, "default.conf", "CVMFS_DEFAULT_DOMAIN=example.org")
    write(tmp_path, f"config.d/{FQRN}.conf", "CVMFS_QUOTA_LIMIT=77")
    found = settings(tmp_path, "data")
    assert found.fqrn == FQRN
    assert found.cache.limit == 77 * MIB


def test_marks_are_replaced_in_servers(tmp_path: Path) -> None:
    assert settings(tmp_path).network.servers == (
        f"http://one/cvmfs/{FQRN}",
        f"http://two/cvmfs/{FQRN}",
    )


def test_a_url_is_its_own_server_and_needs_no_proxy(tmp_path: Path) -> None:
    write(tmp_path, "default.conf", "CVMFS_SERVER_URL=http://configured/@fqrn@")
    url = f"http://host:8000/cvmfs/{FQRN}/"
    found = load_settings(url, environ={}, config_root=tmp_path)
    assert found.fqrn == FQRN
    assert found.network.servers == (url.rstrip("/"),)
    assert found.network.proxies == "DIRECT"


def test_a_folder_is_named_by_its_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "any name"
    folder.mkdir()
    (folder / ".cvmfspublished").write_bytes(f"Cabc\nN{FQRN}\n--\nsignature".encode())
    url = f"file://{tmp_path}/any%20name"
    for repo in (str(folder), url):
        found = load_settings(repo, environ={}, config_root=tmp_path)
        assert found.fqrn == FQRN
        assert found.network.servers == (url,)


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("", "repository name"),
        (".hidden.org", "repository name"),
        ("data example.org", "repository name"),
        ("http:///data.example.org", "not a URL"),
        ("http://host/bad name", "repository name"),
        ("/nowhere/at/all", "no repository in this folder"),
        ("x" * 61, "repository name"),
    ],
)
def test_what_names_no_repository(tmp_path: Path, repo: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, repo)


def test_a_manifest_without_a_name(tmp_path: Path) -> None:
    (tmp_path / ".cvmfspublished").write_bytes(b"Cabc\n--\nNfake.example.org\n")
    with pytest.raises(ConfigError, match="states no name"):
        settings(tmp_path, str(tmp_path))


def test_the_configuration_repository_comes_between(tmp_path: Path) -> None:
    root, mounted = tmp_path / "etc", tmp_path / "cvmfs"
    shared = mounted / "config.example.net" / "etc" / "cvmfs"
    write(
        root,
        "default.conf",
        f"CVMFS_CONFIG_REPOSITORY=config.example.net\nCVMFS_MOUNT_DIR={mounted}\n"
        "CVMFS_A=default\nCVMFS_B=default\n",
    )
    write(root, "default.local", "CVMFS_B=local")
    write(shared, "default.conf", "CVMFS_A=shared\nCVMFS_B=shared")
    write(shared, "domain.d/example.org.conf", "CVMFS_C=shared\nCVMFS_D=shared")
    write(root, "domain.d/example.org.conf", "CVMFS_D=own")
    _, found = load_parameters(FQRN, environ=BASE, config_root=root)
    assert [found.text(f"CVMFS_{n}") for n in "ABCD"] == ["shared", "local", "shared", "own"]
    assert mounted / "config.example.net/etc/cvmfs/blacklist" in settings(root).trust.blacklists


def test_a_required_configuration_repository_must_be_there(tmp_path: Path) -> None:
    write(
        tmp_path,
        "default.conf",
        f"CVMFS_CONFIG_REPOSITORY=config.example.net\nCVMFS_MOUNT_DIR={tmp_path}\n"
        "CVMFS_CONFIG_REPO_REQUIRED=yes\n",
    )
    with pytest.raises(ConfigError, match=r"config\.example\.net is not mounted"):
        settings(tmp_path)


@pytest.mark.parametrize("repo", ["config.example.net", "config"])
def test_the_configuration_repository_itself_needs_none(tmp_path: Path, repo: str) -> None:
    write(
        tmp_path,
        "default.conf",
        f"CVMFS_CONFIG_REPOSITORY=config.example.net\nCVMFS_MOUNT_DIR={tmp_path}\n"
        "CVMFS_CONFIG_REPO_REQUIRED=yes\nCVMFS_DEFAULT_DOMAIN=example.net\n",
    )
    own = tmp_path / "config.example.net" / "etc" / "cvmfs"
    assert settings(tmp_path, repo).fqrn == "config.example.net"
    assert cache_settings({"HOME": "/"}, config_root=tmp_path).limit == 4000 * MIB
    write(own, "default.conf", "CVMFS_QUOTA_LIMIT=7")
    assert settings(tmp_path, repo).cache.limit == 4000 * MIB
    assert settings(tmp_path).cache.limit == 7 * MIB


def test_a_configuration_repository_is_named_before_all_others(tmp_path: Path) -> None:
    for name in LAYERS[3:]:
        write(tmp_path, name, "CVMFS_CONFIG_REPOSITORY=config.example.net\n")
    _, found = load_parameters(FQRN, environ=BASE, config_root=tmp_path)
    assert found.text("CVMFS_CONFIG_REPOSITORY") == ""
    assert "set too late" in found.warnings[0]


def test_what_upstreams_domain_files_do(tmp_path: Path) -> None:
    write(
        tmp_path,
        "domain.d/example.org.conf",
        """
        if [ "$CVMFS_MARK" != "" ]; then
          return
        fi
        if [ "$CVMFS_OTHER" = "yes" ]; then
          CVMFS_SERVER_URL="http://other/@fqrn@"
        else
          CVMFS_SERVER_URL="http://one/@fqrn@;http://two/@fqrn@"
        fi
        CVMFS_USE_GEOAPI=yes
        """,
    )
    environ = {"CVMFS_HTTP_PROXY": "DIRECT"}

    def servers(**more: str) -> tuple[str, ...]:
        found = load_settings(FQRN, environ=environ | more, config_root=tmp_path)
        assert found.network.use_geoapi is ("CVMFS_MARK" not in more)
        return found.network.servers

    assert servers() == (f"http://one/{FQRN}", f"http://two/{FQRN}")
    assert servers(CVMFS_OTHER="yes") == (f"http://other/{FQRN}",)
    assert servers(CVMFS_MARK="1", CVMFS_SERVER_URL="http://x") == ("http://x",)


@pytest.mark.parametrize("repo", [FQRN, "http://three/" + FQRN])
def test_a_server_by_hand_goes_through_the_configured_proxy(tmp_path: Path, repo: str) -> None:
    options = {} if "/" in repo else {"CVMFS_SERVER_URL": "http://three"}
    for environ, proxies in (({}, "DIRECT"), ({"CVMFS_HTTP_PROXY": "http://p:1"}, "http://p:1")):
        found = load_settings(repo, overrides=options, environ=environ, config_root=tmp_path)
        assert found.network.proxies == proxies
        assert found.network.servers[0].startswith("http://three")


def test_strict_mounts_are_only_those_listed(tmp_path: Path) -> None:
    strict = {"CVMFS_STRICT_MOUNT": "yes"}
    settings(tmp_path, **strict, CVMFS_REPOSITORIES=f"a.b.c, {FQRN}")
    with pytest.raises(ConfigError, match="CVMFS_REPOSITORIES"):
        settings(tmp_path, **strict, CVMFS_REPOSITORIES="a.b.c")


@pytest.mark.parametrize("missing", ["CVMFS_SERVER_URL", "CVMFS_HTTP_PROXY"])
def test_what_must_be_set(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"set {missing}"):
        load_settings(FQRN, environ=BASE | {missing: ""}, config_root=tmp_path)


def test_defaults_are_those_of_the_reference_client(tmp_path: Path) -> None:
    found = settings(tmp_path)
    network, mount = found.network, found.mount
    assert (network.timeout, network.timeout_direct, network.max_retries) == (5, 10, 1)
    assert (network.backoff_init, network.backoff_max) == (2, 10)
    assert (network.proxy_reset_after, network.host_reset_after) == (300, 1800)
    assert network.low_speed_limit == 1024
    assert found.cache.limit == 4000 * MIB
    assert mount.kcache_timeout == 60
    assert mount.xattr_visibility is XattrVisibility.ROOT_ONLY
    assert found.external is None
    assert found.trust.public_keys == (Path("/etc/cvmfs/keys"),)


def test_values_reach_their_settings(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        CVMFS_EXTERNAL_URL="http://data/a;http://data/b",
        CVMFS_EXTERNAL_TIMEOUT="3",
        CVMFS_PUBLIC_KEY="/a.pub:/b.pub",
        CVMFS_BLACKLIST="/black",
        CVMFS_QUOTA_LIMIT="-1",
        CVMFS_CACHE_BASE="/var/lib/cvmfs",
        CVMFS_MAX_TTL="5",
        CVMFS_UID_MAP="/uids",
        LAZYFS_UMASK="022",
        CVMFS_XATTR_PRIVILEGED_GIDS="0, 5",
        CVMFS_MAGIC_XATTRS_VISIBILITY="always",
    )
    assert found.external is not None
    assert found.external.servers == ("http://data/a", "http://data/b")
    assert found.external.timeout == 3
    assert found.trust.public_keys == (Path("/a.pub"), Path("/b.pub"))
    assert found.trust.blacklists == (Path("/black"),)
    assert (found.cache.limit, found.cache.directory) == (None, Path("/var/lib/cvmfs/lazyfs"))
    assert found.mount.max_ttl == 300
    assert found.mount.uid_map == Path("/uids")
    assert found.mount.umask == 0o022
    assert found.mount.privileged_gids == (0, 5)
    assert found.mount.xattr_visibility is XattrVisibility.ALWAYS


def test_a_root_hash_wins_over_a_tag_and_a_tag_over_a_date(tmp_path: Path) -> None:
    choice = {"CVMFS_REPOSITORY_DATE": "2020-01-01T00:00:00Z"}
    assert settings(tmp_path, **choice).revision.date == choice["CVMFS_REPOSITORY_DATE"]
    choice["CVMFS_REPOSITORY_TAG"] = "v1"
    assert settings(tmp_path, **choice).revision.date is None
    assert settings(tmp_path, **choice).revision.tag == "v1"
    choice["CVMFS_ROOT_HASH"] = "ab"
    assert settings(tmp_path, **choice).revision.root_hash == "ab"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVMFS_TIMEOUT", "soon"),
        ("CVMFS_TIMEOUT", "0"),
        ("CVMFS_MAX_RETRIES", "-1"),
        ("CVMFS_QUOTA_LIMIT", "much"),
        ("CVMFS_QUOTA_LIMIT", "-2"),
        ("CVMFS_USE_GEOAPI", "perhaps"),
        ("LAZYFS_UMASK", "9"),
        ("LAZYFS_UMASK", "7777"),
        ("LAZYFS_UID", "root"),
        ("CVMFS_XATTR_PRIVILEGED_GIDS", "wheel"),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY", "sometimes"),
        ("LAZYFS_READ_AHEAD", "99999999"),
        ("LAZYFS_KNOWN_NODES", "10"),
    ],
)
def test_values_that_cannot_be_used_are_told_with_their_origin(
    tmp_path: Path, name: str, value: str
) -> None:
    write(tmp_path, "default.local", f"{name}={value}")
    with pytest.raises(ConfigError, match=rf"{name}='{value}'.*default\.local:1"):
        settings(tmp_path)


def test_links_see_parameters_over_the_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, CVMFS_SITE="here", HOME="/root").symlink_variables
    assert found["CVMFS_SITE"] == "here"
    assert found["HOME"] == "/root"
    assert found["CVMFS_FQRN"] == FQRN
    assert found["CVMFS_ARCH"] == os.uname().machine
    assert settings(tmp_path, CVMFS_SERVER_CACHE_MODE="yes").symlink_variables == {}


def test_the_cache_of_all_repositories(tmp_path: Path) -> None:
    write(tmp_path, "default.local", "CVMFS_CACHE_DIR=/big\nCVMFS_QUOTA_LIMIT=9")
    write(tmp_path, f"config.d/{FQRN}.conf", "CVMFS_CACHE_DIR=/other")
    found = cache_settings({}, config_root=tmp_path)
    assert (found.directory, found.limit) == (Path("/big"), 9 * MIB)


def test_the_cache_of_a_user_is_below_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = cache_settings({"XDG_CACHE_HOME": "/home/u/.cache"}, config_root=Path("/nowhere"))
    assert found.directory == Path("/home/u/.cache/lazyfs")


@pytest.mark.parametrize(
    ("user", "writable", "by_hand", "expected"),
    [
        (0, False, False, "/var/base/lazyfs"),
        (1000, True, False, "/var/base/lazyfs"),
        (1000, False, False, "/home/u/.cache/lazyfs"),
        (1000, False, True, "/var/base/lazyfs"),
    ],
)
def test_the_systems_cache_is_not_for_everybody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    writable: bool,
    by_hand: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "access", lambda path, mode: writable or mode == os.F_OK)
    environ = {"HOME": "/home/u"}
    if by_hand:
        environ["CVMFS_CACHE_BASE"] = "/var/base"
    else:
        write(tmp_path, "default.conf", "CVMFS_CACHE_BASE=/var/base")
    assert cache_settings(environ, config_root=tmp_path).directory == Path(expected)


def test_the_cache_of_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(ConfigError, match=r"no home directory.*give --cache"):
        cache_settings({}, config_root=Path("/nowhere"))
    found = cache_settings({"HOME": "/home/u"}, config_root=Path("/nowhere"))
    assert found.directory == Path("/home/u/.cache/lazyfs")
    given = {"CVMFS_CACHE_DIR": "/given"}
    assert cache_settings(given, config_root=Path("/nowhere")).directory == Path("/given")


def test_a_check_tells_what_is_wrong_and_what_is_odd(tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    good = BASE | {"CVMFS_PUBLIC_KEY": str(key)}
    missing = f"no master public key in {key}: give --pubkey or set CVMFS_PUBLIC_KEY"
    assert check_parameters(FQRN, {}, good).errors == [missing]
    key.mkdir()
    assert check_parameters(FQRN, {}, good).errors == [missing]
    key.rmdir()
    key.touch()
    assert check_parameters(FQRN, {}, good).errors == []
    odd = check_parameters(FQRN, {}, good | {"CVMFS_TIMEOTU": "5"})
    assert odd.errors == []
    assert [w for w in odd.warnings if "CVMFS_TIMEOTU" in w]
    assert not [w for w in odd.warnings if "CVMFS_HTTP_PROXY" in w]
    wrong = check_parameters(FQRN, {"CVMFS_TIMEOUT": "x"}, good)
    assert len(wrong.errors) == 1
    assert "CVMFS_TIMEOUT" in wrong.errors[0]
