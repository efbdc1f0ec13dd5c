from __future__ import annotations

import hashlib

import pytest

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import (
    SHAKE128_BYTES,
    Algorithm,
    Digest,
    ObjectKind,
    parse_object_path,
)
from lazyfs.cas.rebuild import parse_key
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ConfigError, FormatError

KNOWN = {
    Algorithm.MD5: "900150983cd24fb0d6963f7d28e17f72",
    Algorithm.SHA1: "a9993e364706816aba3e25717850c26c9cd0d89d",
    Algorithm.RMD160: "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc-rmd160",
    Algorithm.SHAKE128: hashlib.shake_128(b"abc").hexdigest(20) + "-shake128",
}
"""Published digests of ``abc`` as text."""

EACH = pytest.mark.parametrize("algorithm", Algorithm)


@EACH
def test_the_digest_of_abc_is_the_published_one(algorithm: Algorithm) -> None:
    assert str(algorithm.digest(b"abc")) == KNOWN[algorithm]


def test_shake128_is_cut_to_160_bits() -> None:
    digest = Algorithm.SHAKE128.digest(b"")
    assert digest.hex == "7f9c2ba4e88f827d616045507605853ed73b8093"
    assert len(digest.raw) == SHAKE128_BYTES == 20


@EACH
def test_pieces_give_the_digest_of_the_whole(algorithm: Algorithm) -> None:
    hasher = algorithm.hasher()
    for piece in (b"a", bytearray(b"b"), memoryview(b"c")):
        hasher.update(piece)
    assert hasher.result() == algorithm.digest(b"abc")


@EACH
def test_asking_for_the_result_does_not_end_the_hasher(algorithm: Algorithm) -> None:
    hasher = algorithm.hasher()
    hasher.update(b"ab")
    assert hasher.result() == hasher.result() == algorithm.digest(b"ab")
    hasher.update(b"c")
    assert hasher.result() == algorithm.digest(b"abc")


@EACH
def test_text_is_read_back(algorithm: Algorithm) -> None:
    digest = Digest.parse(KNOWN[algorithm])
    assert digest == algorithm.digest(b"abc")
    assert (digest.algorithm, str(digest)) == (algorithm, KNOWN[algorithm])


def test_the_suffixes_and_numbers_are_upstreams() -> None:
    assert [(a.value, a.suffix) for a in Algorithm] == [
        (0, ""),
        (1, ""),
        (2, "-rmd160"),
        (3, "-shake128"),
    ]


@pytest.mark.parametrize("kind", ObjectKind)
def test_the_letter_of_the_kind_ends_the_path(kind: ObjectKind) -> None:
    digest = Algorithm.SHAKE128.digest(b"abc")
    text = KNOWN[Algorithm.SHAKE128]
    assert digest.object_path(kind) == f"data/{text[:2]}/{text[2:]}{kind.value}"


def test_the_letters_are_upstreams() -> None:
    assert [kind.value for kind in ObjectKind] == ["", "P", "C", "H", "X", "M"]


def test_a_plain_file_has_no_letter() -> None:
    digest = Algorithm.SHA1.digest(b"abc")
    assert digest.object_path() == "data/a9/993e364706816aba3e25717850c26c9cd0d89d"


@pytest.mark.parametrize("kind", ObjectKind)
@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_path_tells_the_object(algorithm: Algorithm, kind: ObjectKind) -> None:
    digest = algorithm.digest(b"abc")
    assert parse_object_path(digest.object_path(kind)) == (digest, kind)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data/txn/lease",
        "data/a9/short",
        "data/a9/993e364706816aba3e25717850c26c9cd0d89dL",
        "data/a9/993e364706816aba3e25717850c26c9cd0d89dCC",
        "data/a9/993e364706816aba3e25717850c26c9cd0d89d\n",
        "data/A9/993e364706816aba3e25717850c26c9cd0d89d",
        "data/a9/993e364706816aba3e25717850c26c9cd0d89d-sha3",
        "a9/993e364706816aba3e25717850c26c9cd0d89d",
    ],
)
def test_other_paths_tell_none(path: str) -> None:
    assert parse_object_path(path) is None


SHA1 = KNOWN[Algorithm.SHA1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(SHA1[:-1], id="short"),
        pytest.param(SHA1 + "0", id="long"),
        pytest.param(SHA1.upper(), id="upper-case"),
        pytest.param("g" + SHA1[1:], id="not-hex"),
        pytest.param(SHA1 + "C", id="kind-letter"),
        pytest.param(SHA1 + "-rmd160C", id="kind-letter-after-suffix"),
        pytest.param(SHA1 + "-sha256", id="unknown-algorithm"),
        pytest.param(SHA1 + "-sha1", id="suffix-of-no-algorithm"),
        pytest.param(SHA1 + "-", id="dash-alone"),
        pytest.param(SHA1 + "-RMD160", id="upper-case-suffix"),
        pytest.param(SHA1 + "-rmd160-shake128", id="two-suffixes"),
        pytest.param(SHA1[:32] + "-rmd160", id="suffix-after-md5-length"),
        pytest.param(SHA1 + "\n", id="newline"),
        pytest.param(" " + SHA1, id="space"),
        pytest.param("data/" + SHA1, id="path"),
        pytest.param("../" + SHA1[3:], id="dots"),
        pytest.param("٣" + SHA1[1:], id="digit-of-another-script"),
        pytest.param("\udc80" * 40, id="surrogates"),
        pytest.param("\0" + SHA1[1:], id="nul"),
    ],
)
def test_other_text_is_no_digest(text: str) -> None:
    with pytest.raises(FormatError, match="not a digest"):
        Digest.parse(text)


def test_an_error_shows_only_the_beginning_of_long_text() -> None:
    with pytest.raises(FormatError) as caught:
        Digest.parse("x" * 100_000)
    assert len(str(caught.value)) < 200


def test_an_md5_cannot_name_content() -> None:
    assert Digest.parse_content(SHA1) == Algorithm.SHA1.digest(b"abc")
    with pytest.raises(FormatError, match="MD5"):
        Digest.parse_content(KNOWN[Algorithm.MD5])


@EACH
@pytest.mark.parametrize("more", [-1, 1])
def test_bytes_of_another_length_are_refused(algorithm: Algorithm, more: int) -> None:
    with pytest.raises(FormatError, match=f"{algorithm.size} bytes"):
        Digest(algorithm, bytes(algorithm.size + more))


def test_the_same_bytes_under_another_algorithm_are_another_digest() -> None:
    raw = bytes(range(20))
    digests = {Digest(a, raw) for a in Algorithm if a.size == 20}
    assert len(digests) == 3


def test_a_digest_of_zeroes_means_none() -> None:
    assert Digest(Algorithm.SHA1, bytes(20)).is_null
    assert not Digest(Algorithm.SHA1, bytes(19) + b"\1").is_null


def test_an_algorithm_that_the_machine_lacks_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without(name: str, **options: object) -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", without)
    with pytest.raises(ConfigError, match="ripemd160"):
        Algorithm.RMD160.digest(b"")


# --- names in a cache ----------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("codec", Codec)
def test_a_cache_key_says_the_digest_and_the_codec(algorithm: Algorithm, codec: Codec) -> None:
    digest = algorithm.digest(b"abc")
    assert parse_key(ObjectRef(digest, codec=codec).key) == (digest, codec)


@pytest.mark.parametrize("key", ["", ".raw", SHA1 + ".raw.raw", SHA1 + ".zst", SHA1 + "P"])
def test_other_names_are_no_cache_keys(key: str) -> None:
    with pytest.raises(FormatError):
        parse_key(key)


def test_a_reference_is_shown_with_its_kind_and_label() -> None:
    digest = Algorithm.SHA1.digest(b"abc")
    assert str(ObjectRef(digest, ObjectKind.CATALOG)) == SHA1 + "C"
    assert str(ObjectRef(digest, ObjectKind.CHUNK, label="/f")) == SHA1 + "P [/f]"


def test_the_declared_size_bounds_the_content_before_any_limit() -> None:
    digest = Algorithm.SHA1.digest(b"abc")
    assert ObjectRef(digest, size=3, limit=100).bound == 3
    assert ObjectRef(digest, size=0, limit=100).bound == 0
    assert ObjectRef(digest, limit=100).bound == 100
