from __future__ import annotations

import os
import re
import subprocess
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


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting and no mount of whoever runs the tests may count, nor of an aborted run."""
    sweep_mounts(tmp_path_factory.getbasetemp().parent)
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
