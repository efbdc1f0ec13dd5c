"""Real S3 servers for tests: MinIO where there is one, and moto's."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from lazyfs.net.patient_pool import Patience
from lazyfs.publish.s3_location import parse_s3_location
from lazyfs.publish.s3_target import S3Target
from support.waiting import wait_until

NAMES = ("minio", "moto")

DOMAIN = "s3.test"
"""Below it, MinIO takes the first part of a host name for that of a bucket."""

REGION = "us-east-1"

QUICK = Patience(
    attempts=4, connect=5.0, answer=10.0, lowest_rate=1e6, first_pause=0.01, longest_pause=0.05
)
"""For servers on loopback."""

ACCESS, SECRET = "lazyfs-test", "a secret for tests only"


_UNVERIFIED = ssl._create_unverified_context()


def minio_binary() -> Path | None:
    """A MinIO server: ``LAZYFS_MINIO``, one on the PATH, or what ``make minio`` built."""
    named = os.environ.get("LAZYFS_MINIO") or shutil.which("minio")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazyfs/bin"
    built = sorted(cache.glob("minio-*"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else None


find_minio = functools.cache(minio_binary)


def pytest_configure() -> None:
    """Look for MinIO before the tests take their environment away."""
    find_minio()


def pytest_report_header() -> str:
    """Which servers the tests run against."""
    found = find_minio()
    minio = f"MinIO ({found})" if found else "no MinIO: 'make minio' builds one where Go is"
    return f"S3 servers: {minio}; moto"


@dataclass(slots=True)
class S3Server:
    """One server that runs."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    """For credentials and data."""
    certificate: Path | None = None
    """Speaks TLS with it."""
    credentials: Path = field(init=False)
    """A file for ``?credentials=``."""

    def __post_init__(self) -> None:
        self.credentials = self.folder / "credentials"
        self.credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
        )

    @property
    def is_minio(self) -> bool:
        """Whether it checks keys, signatures and host names."""
        return self.name == "minio"

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificate is not None

    @property
    def endpoint(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where readers go."""
        return f"http{'s' * self.secure}://{self.endpoint}"

    @property
    def client(self) -> Minio:
        """To look at what was written, and to do what lazyfs does not."""
        ca = str(self.certificate) if self.certificate is not None else None
        return Minio(
            self.endpoint,
            ACCESS,
            SECRET,
            secure=self.secure,
            region=REGION,
            http_client=urllib3.PoolManager(ca_certs=ca, timeout=30),
        )

    def new_bucket(self, *, public: bool = False) -> str:
        """A bucket that no other test uses."""
        bucket = f"lazyfs-{secrets.token_hex(6)}"
        self.client.make_bucket(bucket)
        if public:
            self.client.set_bucket_policy(bucket, json.dumps(public_read(bucket)))
        return bucket

    def location(self, bucket: str, prefix: str = "", *, port: int = 0, options: str = "") -> str:
        """A location of lazyfs, at another port if a proxy stands before the server."""
        scheme = "s3+https" if self.secure else "s3+http"
        place = f"{scheme}://127.0.0.1:{port or self.port}/{bucket}/{prefix}"
        return f"{place}?credentials={self.credentials}{options}"

    def target(
        self,
        bucket: str,
        prefix: str = "",
        *,
        port: int = 0,
        options: str = "",
        patience: Patience = QUICK,
    ) -> S3Target:
        """A target in a bucket."""
        text = self.location(bucket, prefix, port=port, options=options)
        return S3Target(parse_s3_location(text, {}), patience=patience, environ={})

    def kill(self) -> None:
        """End it at once, without a word."""
        self.process.kill()
        self.process.wait()


def public_read(bucket: str) -> dict[str, object]:
    """The policy that lets everybody read objects, as the documentation gives it."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


@contextlib.contextmanager
def running(name: str, folder: Path, *, certificate: Path | None = None) -> Iterator[S3Server]:
    """A server of its own.

    Args:
        name: Of `NAMES`; skips the test if it is not here.
        folder: An empty one.
        certificate: Key and certificate in one file, to speak TLS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process, port = _minio(folder, certificate) if name == "minio" else _moto(folder, certificate)
    server = S3Server(name, port, process, folder, certificate)
    try:
        if server.is_minio:
            wait_until(lambda: _is_ready(server), seconds=60)
        yield server
    finally:
        server.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _moto(folder: Path, certificate: Path | None) -> tuple[subprocess.Popen[bytes], int]:
    script = Path(__file__).with_name("moto_server.py")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, script, certificate or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (folder / "log").read_text()
    return process, int(line)


def _minio(folder: Path, certificate: Path | None) -> tuple[subprocess.Popen[bytes], int]:
    binary = find_minio()
    if binary is None:
        pytest.skip("no MinIO server: set LAZYFS_MINIO, or run 'make minio' where Go is installed")
    certificates = folder / "certificates"
    certificates.mkdir()
    if certificate is not None:
        key, begin, public = certificate.read_text().partition("-----BEGIN CERTIFICATE-----")
        (certificates / "private.key").write_text(key)
        (certificates / "public.crt").write_text(begin + public)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    command += ["--certs-dir", certificates, folder / "data"]
    environ = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "MINIO_ROOT_USER": ACCESS,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_DOMAIN": DOMAIN,
        "MINIO_SITE_REGION": REGION,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
    return process, port


def _is_ready(server: S3Server) -> bool:
    """Whether it refuses strangers: before, it answers that it is not initialized yet."""
    assert server.process.poll() is None, (server.folder / "log").read_text()
    try:
        with urllib.request.urlopen(server.url, timeout=5, context=_UNVERIFIED):
            return True
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code == 403
    except OSError:
        return False


class S3Servers:
    """Servers that many tests share, started when the first one asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, S3Server] = {}

    def get(self, name: str) -> S3Server:
        """The server of that name; skips the test if it is not here."""
        if name not in self._servers:
            entered = running(name, self._folder / name)
            self._servers[name] = self._stack.enter_context(entered)
        return self._servers[name]

    def close(self) -> None:
        """End them."""
        self._stack.close()


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Servers]:
    """All S3 servers that this machine has."""
    servers = S3Servers(tmp_path_factory.mktemp("s3"))
    yield servers
    servers.close()


@pytest.fixture(params=NAMES)
def s3_server(request: pytest.FixtureRequest, s3_servers: S3Servers) -> S3Server:
    """Each S3 server in turn."""
    return s3_servers.get(request.param)
