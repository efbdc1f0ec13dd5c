from __future__ import annotations

from pathlib import Path

from lazyfs.fuse.mountinfo import parse_mounted_upon, parse_mountinfo

LINES = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:50 / /mnt/data ro - fuse.lazyfs data.example.org ro
41 40 254:0 /etc/hosts /mnt/data/image/etc/hosts rw - ext4 /dev/root rw
42 40 0:60 / /mnt/data/odd\040dir rw - tmpfs tmpfs rw
43 42 0:61 / /mnt/data/odd\040dir/below rw - tmpfs tmpfs rw
44 22 0:50 /image /srv/image ro - fuse.lazyfs data.example.org ro
45 44 0:62 / /srv/image/tmp rw - tmpfs tmpfs rw
46 22 0:51 / /mnt/other ro - fuse.lazyfs other.example.org ro
47 46 0:63 / /mnt/other/x rw - tmpfs tmpfs rw
cut short
"""


def test_mounts_are_read_with_their_odd_names() -> None:
    mounts = list(parse_mountinfo(LINES))
    assert len(mounts) == 9
    assert mounts[1].device == "0:50"
    assert mounts[1].kind == "fuse.lazyfs"
    assert mounts[3].mountpoint == Path("/mnt/data/odd dir")


def test_what_is_mounted_upon_is_found_wherever_a_part_is_seen() -> None:
    found = set(parse_mounted_upon(LINES, "0:50"))
    assert found == {b"/image/etc/hosts", b"/odd dir", b"/image/tmp"}
    assert set(parse_mounted_upon(LINES, "0:51")) == {b"/x"}
    assert set(parse_mounted_upon(LINES, "0:99")) == set()
