from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.commands import invoke, invoke_ok, run, run_ok
from support.mounts import END_SECONDS, LAZYFS, RunningMount, mounted
from support.publishing import PublishedRepository, make_repository
from support.waiting import wait_until

from lazyfs.config.settings import MountSettings
from lazyfs.errors import ControlError, MountError
from lazyfs.fuse.mount import ENDING_SIGNALS
from lazyfs.fuse.mountinfo import find_mount
from lazyfs.fuse.session import MAX_BACKGROUND

BIG = os.urandom(300_000)

NOBODY = 65534
BECOME_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return make_repository(tmp_path, {"hello": b"hello\n", "dir/big": BIG})


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One registry for the mounts and the commands of a test."""
    monkeypatch.setenv("LAZYFS_RUNTIME_DIR", str(tmp_path / "run"))
    return str(tmp_path / "run")


def mount_it(
    repository: PublishedRepository, tmp_path: Path, *, at: Path | None = None
) -> AbstractContextManager[RunningMount]:
    return mounted(
        repository.root,
        pubkey=repository.pubkey,
        cache=tmp_path / "cache",
        env={"LAZYFS_RUNTIME_DIR": str(tmp_path / "run")},
        at=at,
    )


def options(repository: PublishedRepository, tmp_path: Path) -> tuple[str, ...]:
    return ("--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache"))


def wait_for_end(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        assert select.select([fd], [], [], END_SECONDS)[0], f"process {pid} does not end"
    finally:
        os.close(fd)


def test_a_background_mount_answers_when_the_command_returns(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    run_ok("mount", *options(repository, tmp_path), str(repository.root), str(path))
    assert (path / "hello").read_bytes() == b"hello\n"
    assert str(path) in run_ok("mounts")
    pid = int(run_ok("ctl", str(path), "pid"))
    run_ok("umount", str(path))
    wait_for_end(pid)
    assert find_mount(path) is None
    assert str(path) not in run_ok("mounts")


def test_a_background_mount_keeps_nothing_of_its_caller_open(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    reader, writer = os.pipe()
    try:
        subprocess.run(
            [*LAZYFS, "mount", *options(repository, tmp_path), str(repository.root), str(path)],
            pass_fds=[writer],
            check=True,
            timeout=60,
        )
        os.close(writer)
        os.set_blocking(reader, False)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
        run_ok("umount", str(path))


@pytest.mark.parametrize("hidden", ["cache", "log"])
def test_a_mount_that_would_hide_what_it_needs_is_refused(
    hidden: str, repository: PublishedRepository, tmp_path: Path
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    (tmp_path / "link").symlink_to(path)
    places = {"cache": tmp_path / "cache", "log": tmp_path / "log"}
    places[hidden] = tmp_path / "link" / hidden
    words = ["--pubkey", str(repository.pubkey), str(repository.root), str(path)]
    done = run("mount", "--cache", str(places["cache"]), "--log", str(places["log"]), *words)
    assert done.returncode == MountError.exit_code
    assert "hidden by the mount" in done.stderr
    assert find_mount(path) is None


def test_a_mount_is_found_through_a_link(repository: PublishedRepository, tmp_path: Path) -> None:
    with mount_it(repository, tmp_path) as mount:
        link = tmp_path / "link"
        link.symlink_to(mount.path)
        assert invoke_ok("ctl", str(link), "pid").text == f"{mount.pid}\n"
        run_ok("umount", str(link))
        assert mount.wait() == 0


def test_a_mount_that_hangs_is_told_of_in_time(
    repository: PublishedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazyfs.cli.ctl.FACT_SECONDS", 0.2)
    monkeypatch.setattr("lazyfs.fuse.overview.QUICK_SECONDS", 0.2)
    with mount_it(repository, tmp_path) as mount:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            done = invoke("ctl", str(mount.path), "status")
            assert done.code == ControlError.exit_code
            assert "timed out" in done.err
            assert f"{mount.path}  does not answer" in invoke_ok("mounts").text
        finally:
            mount.process.send_signal(signal.SIGCONT)


def test_a_second_mount_at_the_same_place_is_refused(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    with mount_it(repository, tmp_path) as mount:
        done = run("mount", *options(repository, tmp_path), str(repository.root), str(mount.path))
        assert done.returncode == 80
        assert "mounted there already" in done.stderr


def test_a_busy_mount_is_not_unmounted_unless_lazily(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    with mount_it(repository, tmp_path) as mount:
        with (mount.path / "dir" / "big").open("rb") as file:
            assert file.read(10) == BIG[:10]
            done = run("umount", str(mount.path))
            assert done.returncode == 80
            assert "busy" in done.stderr
            run_ok("umount", "--lazy", str(mount.path))
            assert find_mount(mount.path) is None
            # What is open stays readable until it is closed.
            assert file.read() == BIG[10:]
        assert mount.wait() == 0


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_ends_a_busy_mount(
    number: signal.Signals, repository: PublishedRepository, tmp_path: Path
) -> None:
    with mount_it(repository, tmp_path) as mount:
        fd = os.open(mount.path / "hello", os.O_RDONLY)
        mount.process.send_signal(number)
        assert mount.wait() == 0
        # Nobody is left to be told of the close.
        with contextlib.suppress(OSError):
            os.close(fd)
        assert find_mount(mount.path) is None


def test_a_signal_shows_what_the_mount_is_doing(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    with mount_it(repository, tmp_path) as mount:
        mount.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "what the process is doing" in mount.read_log())
        assert (mount.path / "hello").read_bytes() == b"hello\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change what the kernel does")
def test_the_kernel_is_given_more_room(repository: PublishedRepository, tmp_path: Path) -> None:
    with mount_it(repository, tmp_path) as mount:
        device = mount.entry.device
        read_ahead = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
        assert int(read_ahead.read_text()) == MountSettings().read_ahead_kib
        connection = Path("/sys/fs/fuse/connections") / device.partition(":")[2]
        if connection.exists():
            assert int((connection / "max_background").read_text()) == MAX_BACKGROUND


@pytest.mark.skipif(os.geteuid() != 0, reason="others may not ask for these options")
@pytest.mark.parametrize(
    ("given", "flags"),
    [("", {"ro", "nosuid", "nodev"}), ("suid,dev,noexec,noatime", {"ro", "noexec", "noatime"})],
)
def test_options_reach_the_kernel(
    given: str, flags: set[str], repository: PublishedRepository, tmp_path: Path
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    log = tmp_path / "log"
    words = (*options(repository, tmp_path), "--log", str(log), "-o", given)
    run_ok("mount", *words, str(repository.root), str(path))
    try:
        lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        (found,) = (set(line[3].split(",")) for line in lines if line[1] == str(path))
        assert found & {"ro", "rw", "nosuid", "nodev", "noexec", "noatime"} == flags
        assert f"mounted {repository.fqrn} at {path}" in log.read_text()
    finally:
        run_ok("umount", str(path))


def test_a_mount_left_by_a_kill_is_repaired_by_the_next(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    with mount_it(repository, tmp_path) as mount:
        assert (mount.path / "dir" / "big").read_bytes() == BIG
        mount.kill()
        with pytest.raises(OSError, match="Errno") as caught:
            os.statvfs(mount.path)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        assert f"{mount.path}  dead: its process was killed" in run_ok("mounts")
        # The servers are gone too: what was read before comes from the cache.
        (repository.root / "data").rename(repository.root / "away")
        with mount_it(repository, tmp_path, at=mount.path) as again:
            assert (again.path / "dir" / "big").read_bytes() == BIG
    assert run("cache", "fsck", "--cache", str(tmp_path / "cache")).returncode == 0


def test_a_mount_is_read_only(repository: PublishedRepository, tmp_path: Path) -> None:
    with mount_it(repository, tmp_path) as mount:
        for action in (
            lambda: (mount.path / "new").touch(),
            lambda: (mount.path / "hello").write_bytes(b""),
            lambda: (mount.path / "hello").unlink(),
            lambda: (mount.path / "hello").chmod(0o600),
            lambda: (mount.path / "new").mkdir(),
        ):
            with pytest.raises(OSError, match="Errno") as caught:
                action()
            assert caught.value.errno == errno.EROFS


@pytest.fixture
def open_device() -> Iterator[None]:
    """``/dev/fuse`` as udev makes it: for everybody; bare machines have it for root alone."""
    device = Path("/dev/fuse")
    mode = device.stat().st_mode
    device.chmod(0o666)
    yield
    device.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.usefixtures("open_device")
def test_an_ordinary_user_mounts_reads_and_unmounts(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    if subprocess.run(
        [*BECOME_NOBODY, "sh", "-c", '"$0" -c "import lazyfs"', sys.executable], check=False
    ).returncode:
        pytest.skip(f"{sys.executable} cannot be run by other users")
    home = tmp_path / "home"
    (home / "mnt").mkdir(parents=True)
    with mounted(repository.root, pubkey=repository.pubkey, at=tmp_path / "root's") as other:
        check_as_nobody(home, repository, other)


def check_as_nobody(home: Path, repository: PublishedRepository, other: RunningMount) -> None:
    """Mount, read and unmount; and be refused to unmount what is another user's."""
    for path in home.parents:
        if path.stat().st_uid == 0 and path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
    for path in (home, home / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    script = (
        'set -e; m="$2 -m lazyfs.cli.main";'
        ' $m mount --pubkey "$3" --cache "$1/cache" "$4" "$1/mnt";'
        ' cat "$1/mnt/hello"; $m umount "$1/mnt"; ! $m umount "$5"'
    )
    environment = {**os.environ, "HOME": str(home), "LAZYFS_RUNTIME_DIR": str(home / "run")}
    done = subprocess.run(
        [
            *BECOME_NOBODY,
            "sh",
            "-c",
            script,
            "sh",
            home,
            sys.executable,
            repository.pubkey,
            repository.root,
            other.path,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert "only root and the user who mounted it may do so" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to install a mount helper")
def test_mount_8_finds_the_helper(repository: PublishedRepository, tmp_path: Path) -> None:
    helpers = [Path("/sbin/mount.lazyfs"), Path("/sbin/mount.fuse.lazyfs")]
    if any(helper.is_symlink() or helper.exists() for helper in helpers):
        pytest.skip("/sbin/mount.lazyfs is installed already")
    path = tmp_path / "mnt"
    path.mkdir()
    for helper in helpers:
        helper.symlink_to(Path(sys.executable).parent / "mount.lazyfs")
    try:
        words = f"pubkey={repository.pubkey},cache={tmp_path / 'cache'},nofail"
        command = ["mount", "-t", "lazyfs", str(repository.root), str(path), "-o", words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert (path / "hello").read_bytes() == b"hello\n"
        command = ["mount", "-o", "remount", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "cannot be changed by remounting" in done.stderr
        run_ok("umount", str(path))
    finally:
        for helper in helpers:
            helper.unlink()


def test_a_refused_mount_says_why(repository: PublishedRepository, tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    words = (*options(repository, tmp_path), str(repository.root), str(path))
    done = run("mount", "-o", "CVMFS_ROOT_HASH=" + 40 * "0", *words)
    assert done.returncode == 33, done.stderr
    assert "0000C" in done.stderr
    done = run("mount", "-o", "no_such_option", *words)
    assert done.returncode == 60
    assert "no_such_option" in done.stderr
    assert find_mount(path) is None
