"""What a publisher refuses, and that nothing is lost then: other publishers, clocks, keys."""

from __future__ import annotations

import datetime
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.publishing import FQRN, PublishedRepository, make_repository, write_tree

from lazyfs.cas.digest import Algorithm
from lazyfs.errors import CertificateRefused, LazyfsError, PublishError, SignatureError
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.lease import break_lease, held
from lazyfs.publish.ledger import MAX_CLOCK_SKEW, Ledger
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.repository.check import check_revision
from lazyfs.repository.manifest import MANIFEST_PATH, parse_manifest
from lazyfs.repository.repository import Repository
from lazyfs.repository.whitelist import WHITELIST_PATH


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return make_repository(tmp_path, {"a": b"1"})


def manifest_bytes(repository: PublishedRepository) -> bytes:
    return (repository.root / MANIFEST_PATH).read_bytes()


# --- other publishers ----------------------------------------------------------------------------


def test_the_second_publisher_waits_and_builds_on_the_first(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    """Each adds a directory of its own; in the end all are there."""

    def publish(number: int) -> int:
        folder = tmp_path / f"tree{number}"
        write_tree(folder, {"file": b"%d" % number})
        publisher = Publisher(DirectoryTarget(repository.root), repository.keys, FQRN)
        with publisher.transaction(wait=60) as transaction:
            transaction.sync(DirectorySource(folder), f"/{number}")
            return transaction.commit().revision

    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(publish, range(4)))
    assert sorted(revisions) == [2, 3, 4, 5]
    with Repository.open(
        repository.root, pubkey=repository.pubkey, cache=tmp_path / "cache"
    ) as opened:
        assert {n.name for n in opened.current.listdir(b"")} == {b"a", b"0", b"1", b"2", b"3"}
        assert not check_revision(opened.current).problems


def test_who_does_not_wait_is_told_who_is_at_work(repository: PublishedRepository) -> None:
    before = manifest_bytes(repository)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held(DirectoryTarget(repository.root), "a long publish"):
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        entered.wait()
        with pytest.raises(PublishError, match=r"at work: .*\(a long publish\)"):
            repository.publish({"a": b"2"})
        assert manifest_bytes(repository) == before
        leave.set()
        holding.result()
    assert repository.publish({"a": b"2"}).revision == 2


def test_who_has_lost_the_race_publishes_nothing(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    """Leases keep publishers apart; where one is broken, the manifest is what counts."""
    target = DirectoryTarget(repository.root)
    write_tree(tmp_path / "mine", {"mine": b"m"})
    with repository.publisher.transaction() as transaction:
        transaction.sync(DirectorySource(tmp_path / "mine"))
        break_lease(target)
        repository.publish({"theirs": b"t"})
        theirs = manifest_bytes(repository)
        with pytest.raises(PublishError, match="somebody else has published meanwhile"):
            transaction.commit()
    assert manifest_bytes(repository) == theirs
    assert repository.publish({"mine": b"m"}).revision == 3


# --- clocks --------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back(
    repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest_bytes(repository)
    timestamp = parse_manifest(before).timestamp
    ledger = repository.publisher.ledger
    monkeypatch.setattr(ledger, "_clock", lambda: timestamp - MAX_CLOCK_SKEW - 1)
    with pytest.raises(PublishError, match="behind the last publication"):
        repository.publish({"a": b"2"})
    assert manifest_bytes(repository) == before
    # A few seconds are no reason to wait, and no reason to go back in time either.
    monkeypatch.setattr(ledger, "_clock", lambda: timestamp - 5)
    assert repository.publish({"a": b"2"}).revision == 2
    assert parse_manifest(manifest_bytes(repository)).timestamp == timestamp


# --- keys ----------------------------------------------------------------------------------------


def test_an_expired_whitelist(repository: PublishedRepository) -> None:
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=100)
    whitelist = make_whitelist(FQRN, repository.keys, Algorithm.SHA1, now=long_ago)
    signed = sign_whitelist(whitelist, repository.keys.need_master(), Algorithm.SHA1)
    (repository.root / WHITELIST_PATH).write_bytes(signed)
    with pytest.raises(PublishError, match=r"has expired .*publish resign"):
        repository.publish({"a": b"2"})
    repository.publisher.renew_whitelist()
    assert repository.publish({"a": b"2"}).revision == 2


def test_a_certificate_that_the_whitelist_does_not_list(repository: PublishedRepository) -> None:
    revoked = repository.keys.with_new_certificate(FQRN)
    before = manifest_bytes(repository)
    publisher = Publisher(DirectoryTarget(repository.root), revoked, FQRN)
    with pytest.raises(PublishError, match="does not list the certificate"):
        publisher.publish(repository.source)
    assert manifest_bytes(repository) == before


def test_a_head_that_a_stranger_has_signed_is_not_built_on(
    repository: PublishedRepository,
) -> None:
    """Who can write to the place must not get their tree signed by the real keys."""
    stranger = RepositoryKeys.generate(FQRN)
    place = DirectoryTarget(repository.root)
    (repository.root / MANIFEST_PATH).unlink()
    theirs = Publisher(place, stranger, FQRN)
    theirs.init()
    with pytest.raises(SignatureError, match="whitelist is not signed"):
        repository.publish({"a": b"2"})


def test_a_head_that_was_tampered_with_is_not_built_on(repository: PublishedRepository) -> None:
    manifest = parse_manifest(manifest_bytes(repository))
    stranger = RepositoryKeys.generate(FQRN)
    forged = sign_manifest(manifest, stranger.key, Algorithm.SHA1)
    (repository.root / MANIFEST_PATH).write_bytes(forged)
    with pytest.raises(SignatureError, match="not signed by the repository's certificate"):
        repository.publish({"a": b"2"})


def test_a_colleagues_head_is_built_on_if_the_master_key_vouches_for_it(
    repository: PublishedRepository,
) -> None:
    colleague = repository.keys.with_new_certificate(FQRN)
    ledger = Ledger(DirectoryTarget(repository.root), colleague, FQRN)
    ledger.sign_whitelist(Algorithm.SHA1, 30, others=[repository.keys.certificate_der])
    theirs = Publisher(DirectoryTarget(repository.root), colleague, FQRN)
    assert theirs.publish(repository.source).revision == 2
    assert repository.publish({"a": b"3"}).revision == 3
    # Who has no public key at hand cannot tell a colleague from a stranger.
    blind = RepositoryKeys(None, colleague.key, colleague.certificate)
    with pytest.raises(CertificateRefused, match="another certificate signed"):
        Publisher(DirectoryTarget(repository.root), blind, FQRN).publish(repository.source)


# --- damage --------------------------------------------------------------------------------------


def test_a_catalog_that_is_damaged_ends_the_transaction(repository: PublishedRepository) -> None:
    root = parse_manifest(manifest_bytes(repository)).root_catalog
    path = repository.root / f"{root.object_path()}C"
    path.write_bytes(path.read_bytes()[:-10])
    before = manifest_bytes(repository)
    with pytest.raises(LazyfsError, match=str(root)):
        repository.publish({"a": b"2"})
    assert manifest_bytes(repository) == before


def test_a_file_that_grows_while_it_is_read(repository: PublishedRepository) -> None:
    write_tree(repository.source, {"a": b"x" * 1000})
    before = manifest_bytes(repository)
    with repository.publisher.transaction() as transaction:
        source = DirectorySource(repository.source)
        listing = next(iter(source.listings()))
        (repository.source / "a").write_bytes(b"y" * 2000)
        source.listings = lambda: iter([listing])  # type: ignore[method-assign]
        with pytest.raises(PublishError, match="changes while it is published"):
            transaction.sync(source)
    assert manifest_bytes(repository) == before
