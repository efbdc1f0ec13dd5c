from __future__ import annotations

import getpass
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["support.s3_server"]

settings.register_profile(
    "ci", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

KEPT = frozenset(("LAZYFS_CVMFS2", "LAZYFS_CVMFS_SWISSKNIFE"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take away what an aborted run left mounted; not in the middle of a run of several workers."""
    if not hasattr(session.config, "workerinput"):
        sweep_mounts(Path(tempfile.gettempdir()) / f"pytest-of-{getpass.getuser()}")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of whoever runs the tests may count."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("LAZYFS_", "CVMFS_", "AWS_", "MINIO_")) and name not in KEPT:
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("LAZYFS_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield
    sweep_mounts(tmp_path_factory.getbasetemp())


def sweep_mounts(root: Path) -> None:
    """Take away lazyfs mounts below ``root``, without touching them."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mountpoint = line.split(" ")[4]
        if " - fuse.lazyfs " in line and re.match(re.escape(str(root)) + "/", mountpoint):
            subprocess.run(["umount", "-i", "-l", mountpoint], check=False)
