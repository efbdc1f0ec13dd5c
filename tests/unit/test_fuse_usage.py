from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from support.clock import FakeClock

from lazyfs.cas.local_cache import CacheUsage, LocalCache
from lazyfs.errors import NotCached
from lazyfs.fuse.usage import FRESH_SECONDS, UsageMeter
from lazyfs.repository.revision import Revision

USAGE = CacheUsage(1000, 100, 10, 0, 5, 0, 0)
ROOT = {"self_regular": 3, "self_symlink": 1, "self_special": 0, "self_dir": 2}
NESTED = {"self_regular": 4, "self_symlink": 0, "self_special": 0, "self_dir": 1}


class Lister:
    """Catalogs of which one was let go again."""

    def lister(self, path: bytes, *, fetch: bool) -> SimpleNamespace:
        assert not fetch, "the network must not be asked"
        if path == b"/gone":
            raise NotCached("gone")
        return SimpleNamespace(counters=lambda: NESTED if path else ROOT)


def revision() -> Revision:
    totals = {"regular": 20, "symlink": 2, "special": 1, "dir": 7, "chunks": 99}
    fake = SimpleNamespace(
        counters=lambda: totals, open_catalogs=lambda: [b"", b"/n", b"/gone"], tree=Lister()
    )
    return cast("Revision", fake)


CACHE = cast("LocalCache", SimpleNamespace(usage=lambda: USAGE))


def test_entries_of_catalogs_that_are_not_open_are_unseen() -> None:
    usage = UsageMeter(FakeClock()).measure(CACHE, revision())
    assert usage.cache is USAGE
    assert usage.entries == 30
    assert usage.entries_unseen == 30 - 6 - 5


def test_an_answer_is_given_again_while_it_is_fresh() -> None:
    clock = FakeClock()
    meter = UsageMeter(clock)
    assert meter.recent is None
    usage = meter.measure(CACHE, revision())
    clock.advance(FRESH_SECONDS)
    assert meter.recent is usage
    clock.advance(0.1)
    assert meter.recent is None
