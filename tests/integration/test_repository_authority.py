from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.documents import FQRN, NOW, make_keys, manifest_for, signed_manifest, signed_whitelist
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import SMALL_LIMIT
from lazyfs.config.settings import CacheSettings, TrustSettings
from lazyfs.errors import (
    AllMirrorsFailed,
    CacheError,
    CertificateRefused,
    FormatError,
    HashMismatch,
    LazyfsError,
    ObjectMissing,
    RollbackRefused,
    SignatureError,
    WhitelistExpired,
)
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.repository.authority import Authority
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest
from lazyfs.repository.remembered import Documents, Remembered
from lazyfs.repository.whitelist import WHITELIST_PATH, format_fingerprint

KEYS = make_keys()
OTHERS = make_keys("others")
LATE = NOW + datetime.timedelta(days=31)


@dataclass
class Servers:
    """What the servers say; a document may be an error to raise."""

    documents: dict[str, bytes | LazyfsError] = field(default_factory=dict)
    after_switch: dict[str, bytes | LazyfsError] = field(default_factory=dict)
    """What they say once another server was asked for."""
    asked: list[tuple[str, bool]] = field(default_factory=list)
    host: str = "http://first/repo"

    def fetch_document(
        self, path: str, *, limit: int = SMALL_LIMIT, no_cache: bool = False
    ) -> bytes:
        assert limit == SMALL_LIMIT
        self.asked.append((path, no_cache))
        answer = self.documents[path]
        if isinstance(answer, LazyfsError):
            raise answer
        return answer

    def switch_host(self) -> None:
        self.host = "http://second/repo"
        self.documents |= self.after_switch

    def status(self) -> Servers:
        return self

    def say(self, manifest: bytes, whitelist: bytes) -> None:
        self.documents = {MANIFEST_PATH: manifest, WHITELIST_PATH: whitelist}

    def vanish(self) -> None:
        error = AllMirrorsFailed("nobody is there")
        self.documents = {MANIFEST_PATH: error, WHITELIST_PATH: error}


@dataclass
class World:
    """One machine, one cache, some servers."""

    tmp_path: Path
    cache: LocalCache
    servers: Servers = field(default_factory=Servers)
    store: MemoryStore = field(default_factory=MemoryStore)
    now: datetime.datetime = NOW

    def __post_init__(self) -> None:
        self.key = self.tmp_path / "master.pub"
        self.key.write_bytes(KEYS.public_pem)
        self.blacklist = self.tmp_path / "blacklist"

    def publish(
        self, revision: int, *, keys: RepositoryKeys = KEYS, timestamp: int = 1000
    ) -> Manifest:
        """Let the servers offer a revision."""
        certificate = self.store.put(keys.certificate_pem, ObjectKind.CERTIFICATE)
        manifest = manifest_for(
            keys, revision=revision, timestamp=timestamp, certificate=certificate
        )
        self.servers.say(signed_manifest(keys, manifest), signed_whitelist(keys))
        return manifest

    def authority(self, *, allow_rollback: bool = False, allow_expired: bool = False) -> Authority:
        trust = TrustSettings((self.key,), (self.blacklist,), allow_rollback, allow_expired)
        remembered = Remembered(self.cache, FQRN)
        return Authority(FQRN, self.servers, self.store, remembered, trust, clock=lambda: self.now)

    def visit(self) -> None:
        """Decide and believe, as opening a repository does."""
        authority = self.authority()
        authority.believe(authority.decide())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, LocalCache.open(CacheSettings(tmp_path / "cache")))


# --- first contact -------------------------------------------------------------------------


def test_what_is_signed_is_believed(world: World) -> None:
    manifest = world.publish(5)
    verdict = world.authority().decide()
    assert verdict.manifest == manifest
    assert verdict.whitelist.fqrn == FQRN
    assert verdict.certificate_der == KEYS.certificate_der
    assert verdict.offline is None


def sign_with_other_key(world: World) -> None:
    manifest = manifest_for(
        KEYS, certificate=world.store.put(KEYS.certificate_pem, ObjectKind.CERTIFICATE)
    )
    world.servers.say(signed_manifest(OTHERS, manifest), signed_whitelist(KEYS))


def sign_by_unlisted_certificate(world: World) -> None:
    world.publish(7, keys=OTHERS)
    world.servers.documents[WHITELIST_PATH] = signed_whitelist(KEYS)


def sign_whitelist_with_other_key(world: World) -> None:
    world.publish(7, keys=OTHERS)


def expire(world: World) -> None:
    world.now = LATE


def blacklist_certificate(world: World) -> None:
    fingerprint = format_fingerprint(Algorithm.SHA1.digest(KEYS.certificate_der))
    world.blacklist.write_text(f"{fingerprint}\n")


def blacklist_revision(world: World) -> None:
    world.blacklist.write_text(f"<{FQRN} 8\n")


def truncate(world: World) -> None:
    document = world.servers.documents[MANIFEST_PATH]
    assert isinstance(document, bytes)
    world.servers.documents[MANIFEST_PATH] = document[:60]


def tamper(world: World) -> None:
    document = world.servers.documents[MANIFEST_PATH]
    assert isinstance(document, bytes)
    world.servers.documents[MANIFEST_PATH] = document.replace(b"D240", b"D241")


def portal(world: World) -> None:
    world.servers.say(b"<html>Please log in</html>", b"<html>Please log in</html>")


def corrupt_certificate(world: World) -> None:
    digest, kind = next(key for key in world.store.objects if key[1] is ObjectKind.CERTIFICATE)
    world.store.objects[digest, kind] += b"x"


def lose_certificate(world: World) -> None:
    world.store.objects.clear()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (sign_with_other_key, SignatureError),
        (sign_by_unlisted_certificate, CertificateRefused),
        (sign_whitelist_with_other_key, SignatureError),
        (expire, WhitelistExpired),
        (blacklist_certificate, CertificateRefused),
        (blacklist_revision, CertificateRefused),
        (truncate, FormatError),
        (tamper, HashMismatch),
        (portal, FormatError),
        (corrupt_certificate, FormatError),
        (lose_certificate, ObjectMissing),
    ],
)
def test_what_must_not_be_believed_is_refused_with_its_name(
    world: World, spoil: Callable[[World], None], error: type[LazyfsError]
) -> None:
    world.publish(7)
    spoil(world)
    with pytest.raises(error) as caught:
        world.authority().decide()
    assert caught.value.object
    if error is not ObjectMissing:
        assert (caught.value.url or "").startswith("http://second/repo")


def test_another_server_is_asked_when_the_first_is_wrong(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = world.publish(7)
    good = dict(world.servers.documents)
    tamper(world)
    world.servers.after_switch = good
    assert world.authority().decide().manifest == manifest
    assert (MANIFEST_PATH, True) in world.servers.asked
    assert "asking again" in caplog.text


def test_nothing_more_is_fetched_for_a_manifest_with_a_false_signature(world: World) -> None:
    sign_with_other_key(world)
    with pytest.raises(SignatureError):
        world.authority().decide()
    assert {path for path, _ in world.servers.asked} == {MANIFEST_PATH}


def test_an_expired_whitelist_can_be_allowed_in_words(world: World) -> None:
    world.publish(7)
    world.now = LATE
    assert world.authority(allow_expired=True).decide().manifest.revision == 7


# --- going on with what was seen -----------------------------------------------------------


@pytest.mark.parametrize("spoil", [Servers.vanish, portal, truncate, tamper, lose_certificate])
def test_without_a_usable_answer_the_last_revision_stays(
    world: World, caplog: pytest.LogCaptureFixture, spoil: Callable[[object], None]
) -> None:
    world.publish(7)
    world.visit()
    world.publish(8)
    spoil(world.servers if spoil is Servers.vanish else world)
    verdict = world.authority().decide()
    assert verdict.manifest.revision == 7
    assert verdict.offline is not None
    assert "going on with the revision last seen" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (sign_with_other_key, SignatureError),
        (sign_by_unlisted_certificate, CertificateRefused),
        (blacklist_certificate, CertificateRefused),
        (expire, WhitelistExpired),
    ],
)
def test_a_false_signature_is_an_error_whatever_was_seen(
    world: World, spoil: Callable[[World], None], error: type[LazyfsError]
) -> None:
    world.publish(7)
    world.visit()
    spoil(world)
    with pytest.raises(error):
        world.authority().decide()


def test_what_was_seen_is_verified_again(world: World) -> None:
    world.publish(7)
    world.visit()
    world.servers.vanish()
    world.now = LATE
    with pytest.raises(WhitelistExpired) as caught:
        world.authority().decide()
    assert isinstance(caught.value.__cause__, AllMirrorsFailed)
    world.now = NOW
    blacklist_certificate(world)
    with pytest.raises(CertificateRefused):
        world.authority().decide()


def test_with_another_key_what_was_seen_counts_for_nothing(world: World) -> None:
    world.publish(7)
    world.visit()
    world.key.write_bytes(OTHERS.public_pem)
    world.servers.vanish()
    with pytest.raises(SignatureError):
        world.authority().decide()


def test_nothing_seen_and_nobody_there(world: World) -> None:
    world.servers.vanish()
    with pytest.raises(AllMirrorsFailed):
        world.authority().decide()


# --- never go back -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "timestamp", "older"),
    [(6, 9999, True), (7, 999, True), (7, 1000, False), (7, 1001, False), (8, 1, False)],
)
def test_an_older_revision_is_refused(
    world: World, revision: int, timestamp: int, older: bool
) -> None:
    world.publish(7)
    world.visit()
    other = world.publish(revision, timestamp=timestamp)
    if revision == 7:
        # The same number with another content: somebody reset the repository.
        manifest = manifest_for(
            KEYS,
            revision=7,
            timestamp=timestamp,
            certificate=other.certificate,
            root=manifest_for(KEYS, revision=99).root_catalog,
        )
        world.servers.documents[MANIFEST_PATH] = signed_manifest(KEYS, manifest)
    verdict = world.authority().decide()
    assert isinstance(verdict.offline, RollbackRefused) is older
    assert verdict.manifest.timestamp == (1000 if older else timestamp)


def test_going_back_can_be_allowed_in_words(world: World) -> None:
    world.publish(7)
    world.visit()
    world.publish(6)
    authority = world.authority(allow_rollback=True)
    verdict = authority.decide()
    assert (verdict.manifest.revision, verdict.offline) == (6, None)
    authority.believe(verdict)
    # From then on the older one is what was seen.
    assert world.authority().decide().offline is None


def test_an_expired_memory_still_forbids_to_go_back(world: World) -> None:
    world.publish(7)
    world.visit()
    world.publish(6)
    world.servers.documents[WHITELIST_PATH] = signed_whitelist(KEYS, now=LATE)
    world.now = LATE
    with pytest.raises(RollbackRefused):
        world.authority().decide()


def test_a_repository_made_anew_with_other_keys_begins_again(world: World) -> None:
    world.publish(7)
    world.visit()
    world.key.write_bytes(OTHERS.public_pem)
    world.publish(1, keys=OTHERS)
    assert world.authority().decide().manifest.revision == 1


def test_a_slower_process_does_not_make_the_memory_older(world: World) -> None:
    world.publish(7)
    slow = world.authority()
    verdict = slow.decide()
    world.publish(8)
    world.visit()
    slow.believe(verdict)
    world.servers.vanish()
    assert world.authority().decide().manifest.revision == 8


def flip(content: bytes, place: float) -> bytes:
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"damaged", id="garbage"),
        pytest.param(lambda content: b"1 1 99\nabc", id="wrong-sizes"),
        pytest.param(lambda content: content[:-1], id="cut"),
        pytest.param(lambda content: content + b"x", id="longer"),
        pytest.param(lambda content: flip(content, 0.0), id="sizes"),
        pytest.param(lambda content: flip(content, 0.1), id="manifest"),
        pytest.param(lambda content: flip(content, 0.5), id="middle"),
    ],
)
def test_a_damaged_memory_forbids_nothing(world: World, damage: Callable[[bytes], bytes]) -> None:
    world.publish(7)
    world.visit()
    memory = world.cache.state(f"{FQRN}/documents")
    content = memory.read()
    assert content is not None
    memory.write(damage(content))
    world.publish(6)
    assert world.authority().decide().manifest.revision == 6


@pytest.mark.parametrize("size", [0, 1, SMALL_LIMIT])
def test_documents_of_any_size_are_remembered(world: World, size: int) -> None:
    documents = Documents(b"m\n" * (size // 2), b"\n" * size, b"c" * size)
    Remembered(world.cache, FQRN).keep(documents)
    assert Remembered(world.cache, FQRN).load() == documents


def test_a_full_disk_does_not_keep_a_repository_from_opening(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object, documents: object) -> None:
        raise CacheError("no space left on device")

    world.publish(7)
    monkeypatch.setattr(Remembered, "keep", full)
    world.visit()
    assert "cannot remember" in caplog.text


# --- following -----------------------------------------------------------------------------


def test_an_unchanged_root_catalog_needs_no_signature(world: World) -> None:
    manifest = world.publish(7)
    authority = world.authority()
    held = authority.decide()
    world.now = LATE
    world.servers.asked.clear()
    assert authority.update(held, manifest.root_catalog) is None
    assert world.servers.asked == [(MANIFEST_PATH, False)]


def test_a_newer_revision_is_found(world: World) -> None:
    world.publish(7)
    authority = world.authority()
    held = authority.decide()
    authority.believe(held)
    manifest = world.publish(8)
    verdict = authority.update(held, held.manifest.root_catalog)
    assert verdict is not None
    assert verdict.manifest == manifest


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (Servers.vanish, AllMirrorsFailed),
        (portal, FormatError),
        (tamper, HashMismatch),
        (expire, WhitelistExpired),
        (blacklist_certificate, CertificateRefused),
        (sign_with_other_key, SignatureError),
    ],
)
def test_a_look_that_finds_nothing_usable_says_so(
    world: World, spoil: Callable[[object], None], error: type[LazyfsError]
) -> None:
    world.publish(6)
    authority = world.authority()
    held = authority.decide()
    authority.believe(held)
    world.publish(7)
    spoil(world.servers if spoil is Servers.vanish else world)
    with pytest.raises(error):
        authority.update(held, held.manifest.root_catalog)


def test_a_look_that_finds_an_older_revision_says_so(world: World) -> None:
    world.publish(7)
    authority = world.authority()
    held = authority.decide()
    authority.believe(held)
    world.publish(6)
    with pytest.raises(RollbackRefused, match="--allow-rollback"):
        authority.update(held, held.manifest.root_catalog)


def test_what_is_read_is_not_left_for_an_older_revision_though_nothing_is_remembered(
    world: World,
) -> None:
    world.publish(7)
    authority = world.authority()
    held = authority.decide()
    world.publish(6)
    with pytest.raises(RollbackRefused):
        authority.update(held, held.manifest.root_catalog)
    allowing = world.authority(allow_rollback=True)
    offered = allowing.update(held, held.manifest.root_catalog)
    assert offered is not None
    assert offered.manifest.revision == 6


def test_a_revoked_certificate_is_noticed_without_a_new_revision(world: World) -> None:
    manifest = world.publish(7)
    authority = world.authority()
    held = authority.decide()
    blacklist_certificate(world)
    with pytest.raises(CertificateRefused):
        authority.update(held, manifest.root_catalog)
