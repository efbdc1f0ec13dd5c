"""Random trees for property tests: as a plain model, in a folder, in a tar.

A tree is a dictionary from paths (``b""`` the top, else ``b"/a/b"``) to entries; directories come
before what they hold, files before their further names.
"""

from __future__ import annotations

import itertools
import os
import stat
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from hypothesis import strategies as st

from lazyfs.publish.source import MARKER, Source, SourceItem

IS_ROOT = os.geteuid() == 0
"""Only root can give files away and make devices."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; a hard link has nothing but what it links to."""

    mode: int = 0
    """Type and permissions."""
    content: bytes = b""
    """Of a regular file, or the target of a symbolic link."""
    rdev: int = 0
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    link: bytes | None = None
    """The path of an earlier entry of which this is a further name."""

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file, under its first name."""
        return stat.S_ISREG(self.mode)


Tree = dict[bytes, Entry]


# --- strategies -------------------------------------------------------------------------------

ODD_NAMES = (
    *(b"-rf", b" ", b"*", b"'", b'"', b"\\", b"...", b".hidden", b"a b", b"a\nb", b"a\tb", b"$(X)"),
    *(
        "ü".encode(),
        "u\u0308".encode(),
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"=",
        b"%3D",
        b"#",
        b"~",
        b"x" * 255,
    ),
)
names = st.one_of(
    st.sampled_from((b"a", b"b", b"c", b"A")),
    st.sampled_from(ODD_NAMES),
    st.binary(min_size=1, max_size=4).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")),
).filter(lambda name: name not in (b".", b".."))
times = st.one_of(st.integers(-(10**18), 4 * 10**18), st.integers(-3, 3).map(lambda n: n * 10**9))
contents = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.binary(min_size=1, max_size=3), st.integers(0, 700)).map(lambda t: t[0] * t[1]),
)
targets = st.sampled_from((b"a", b"../b", b"/abs", b"$(HOME)/x", b".", b"\xff", b"t" * 300))
attributes = st.dictionaries(
    st.sampled_from((b"user.a", b"user.b=c%", b"user.\xc3\xbc", b"user." + b"n" * 200)),
    st.one_of(st.binary(max_size=8), st.sampled_from((b"", b"=\n\0", b"v" * 255))),
    max_size=2,
)
owners = st.sampled_from((0, 1000, 65534, 2**31)) if IS_ROOT else st.just(os.geteuid())
groups = st.sampled_from((0, 100, 2**31)) if IS_ROOT else st.just(os.getegid())
nothing: st.SearchStrategy[Mapping[bytes, bytes]] = st.just({})


def _entries(
    kind: int, modes: tuple[int, ...], xattrs: st.SearchStrategy[Mapping[bytes, bytes]]
) -> st.SearchStrategy[Entry]:
    content = {stat.S_IFREG: contents, stat.S_IFLNK: targets}.get(kind, st.just(b""))
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    device = st.sampled_from((os.makedev(1, 3), os.makedev(300, 70000)))
    return st.builds(
        Entry,
        st.sampled_from(modes).map(lambda mode: kind | mode),
        content,
        device if is_device else st.just(0),
        times,
        owners,
        groups,
        xattrs,
    )


@st.composite
def trees(
    draw: st.DrawFn,
    *,
    most: int = 12,
    xattrs: bool = True,
    specials: bool = True,
    devices: bool = IS_ROOT,
    links: bool = True,
    links_across: bool = True,
    markers: bool = True,
) -> Tree:
    """Trees of at most ``most`` entries below the top, markers aside.

    Args:
        draw: Of hypothesis.
        most: Bounds the size.
        xattrs: With attributes of users, on files and directories.
        specials: With named pipes.
        devices: With devices, if there are specials.
        links: With hard links to whatever is no directory.
        links_across: Also between directories.
        markers: With empty ``.cvmfscatalog`` files below the top.
    """
    attached = attributes if xattrs else nothing
    directories = _entries(stat.S_IFDIR, (0o755, 0o700, 0o1777, 0o2755), attached)
    kinds = [
        _entries(stat.S_IFREG, (0o644, 0o400, 0o755, 0o6711), attached),
        directories,
        _entries(stat.S_IFLNK, (0o777,), nothing),
    ]
    if specials:
        kinds.append(_entries(stat.S_IFIFO, (0o600, 0o666), nothing))
        if devices:
            kinds.append(_entries(stat.S_IFCHR, (0o620,), nothing))
            kinds.append(_entries(stat.S_IFBLK, (0o660,), nothing))
    kinds += [st.just(Entry(link=b""))] * links
    places = st.integers(0, 1000)
    tree: Tree = {b"": draw(directories)}
    for place, choice, name, entry in draw(
        st.lists(st.tuples(places, places, names, st.one_of(kinds)), max_size=most)
    ):
        _add(tree, place, choice, name, entry, links_across=links_across)
    if markers:
        marked = draw(st.lists(places, max_size=3))
        holders = [path for path, entry in tree.items() if entry.is_dir and path]
        for place in marked if holders else ():
            holder = holders[place % len(holders)]
            tree[holder + b"/" + MARKER] = Entry(stat.S_IFREG | 0o644, uid=tree[b""].uid)
    return tree


def _add(
    tree: Tree, place: int, choice: int, name: bytes, entry: Entry, *, links_across: bool
) -> None:
    """Put an entry into one of the directories, unless its name is taken."""
    holders = [path for path, there in tree.items() if there.is_dir]
    holder = holders[place % len(holders)]
    path = holder + b"/" + name
    if path in tree:
        return
    if entry.link is not None:
        others = [other for other, there in tree.items() if not there.is_dir]
        if not links_across:
            others = [other for other in others if other.rpartition(b"/")[0] == holder]
        if not others:
            return
        entry = Entry(link=others[choice % len(others)])
    tree[path] = entry


# --- what a tree means ------------------------------------------------------------------------


def first_name(tree: Mapping[bytes, Entry], path: bytes) -> bytes:
    """The name under which an entry is described, however many links lead there."""
    while (link := tree[path].link) is not None:
        path = link
    return path


def resolved(tree: Mapping[bytes, Entry]) -> Tree:
    """The tree with every hard link described as what it links to."""
    return {path: tree[first_name(tree, path)] for path in tree}


def link_groups(tree: Mapping[bytes, Entry], *, across: bool = True) -> set[frozenset[bytes]]:
    """The paths that are names of one regular file, where there are several.

    Args:
        tree: All entries.
        across: Count those in different directories, as a disk does and a repository does not.
    """
    found: dict[object, set[bytes]] = {}
    for path in tree:
        first = first_name(tree, path)
        if tree[first].is_file:
            found.setdefault((first, None if across else path.rpartition(b"/")[0]), set()).add(path)
    return {frozenset(paths) for paths in found.values() if len(paths) > 1}


def read_source(source: Source) -> Tree:
    """The tree that a source gives; what comes again replaces what was there.

    Streamed content is read at once, as its protocol demands.
    """
    tree: Tree = {}
    for item in source.items():
        entry = _entry(item)
        if not entry.is_dir:
            for path in [path for path in tree if path.startswith(item.path + b"/")]:
                del tree[path]
        tree[item.path] = entry
    return tree


def _entry(item: SourceItem) -> Entry:
    if item.link is not None:
        return Entry(link=item.link)
    entry = item.entry
    assert entry.name == item.path.rpartition(b"/")[2]
    content = entry.target
    if item.open is not None:
        with item.open() as file:
            content = b"".join(iter(lambda: file.read(1 << 20), b""))
    if not entry.is_dir:
        assert entry.size == len(content), item.path
    return Entry(
        entry.mode, content, entry.rdev, entry.mtime_ns, entry.uid, entry.gid, entry.xattrs
    )


# --- on disk ----------------------------------------------------------------------------------


def write_folder(tree: Mapping[bytes, Entry], folder: Path) -> None:
    """Lay a tree out; the folder may exist, empty."""
    top = os.fsencode(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, entry in tree.items():
        if path:
            _make(top + path, entry, top)
    # From below, as whatever is put into a directory changes its time.
    for path, entry in reversed(list(tree.items())):
        if entry.link is None:
            _describe(top + path, entry)


def _make(path: bytes, entry: Entry, top: bytes) -> None:
    if entry.link is not None:
        os.link(top + entry.link, path, follow_symlinks=False)
    elif entry.is_dir:
        os.mkdir(path, 0o700)  # noqa: PTH102 - bytes
    elif entry.is_file:
        with open(path, "xb") as file:  # noqa: PTH123 - bytes
            file.write(entry.content)
    elif stat.S_ISLNK(entry.mode):
        os.symlink(entry.content, path)  # noqa: PTH211 - bytes
    else:
        os.mknod(path, stat.S_IFMT(entry.mode) | 0o600, entry.rdev)


def _describe(path: bytes, entry: Entry) -> None:
    if IS_ROOT:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in entry.xattrs.items():
        os.setxattr(path, name, value)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(path, stat.S_IMODE(entry.mode))  # noqa: PTH101 - bytes
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


# --- in a tar ---------------------------------------------------------------------------------

_TAR_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def write_tar(
    tree: Mapping[bytes, Entry],
    file: BinaryIO,
    *more: Mapping[bytes, Entry],
    format: int = tarfile.PAX_FORMAT,
    name: Callable[[bytes], bytes] = lambda path: b"." + path,
) -> int:
    """Archive a tree, in the order that it has.

    Args:
        tree: All entries.
        file: Takes the archive.
        more: Trees that follow in the same archive.
        format: Of `tarfile`; GNU archives have whole seconds and no attributes.
        name: How a path is written.

    Returns:
        How many bytes the archive has before the blocks that end it.
    """
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for path, entry in itertools.chain(*(each.items() for each in (tree, *more))):
            info = tarfile.TarInfo(os.fsdecode(name(path)))
            if entry.link is not None:
                info.type = tarfile.LNKTYPE
                info.linkname = os.fsdecode(name(entry.link))
                archive.addfile(info)
                continue
            info.type = _TAR_TYPES[stat.S_IFMT(entry.mode)]
            info.mode = stat.S_IMODE(entry.mode)
            info.uid, info.gid = entry.uid, entry.gid
            info.mtime = entry.mtime_ns // 10**9
            info.devmajor, info.devminor = os.major(entry.rdev), os.minor(entry.rdev)
            if format == tarfile.PAX_FORMAT:
                info.pax_headers = _pax_headers(entry)
            if entry.is_file:
                info.size = len(entry.content)
            elif stat.S_ISLNK(entry.mode):
                info.linkname = os.fsdecode(entry.content)
            archive.addfile(info, BytesIO(entry.content))
        return archive.offset


def _pax_headers(entry: Entry) -> dict[str, str]:
    seconds, nanoseconds = divmod(abs(entry.mtime_ns), 10**9)
    headers = {"mtime": f"{'-' * (entry.mtime_ns < 0)}{seconds}.{nanoseconds:09}"}
    for key, value in entry.xattrs.items():
        escaped = os.fsdecode(key).replace("%", "%25").replace("=", "%3D")
        headers[f"SCHILY.xattr.{escaped}"] = os.fsdecode(value)
    return headers
