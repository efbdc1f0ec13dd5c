from __future__ import annotations

import itertools

import pytest

from lazyfs.errors import ConfigError
from lazyfs.publish.balance import CatalogWeights, plan_catalogs

WEIGHTS = CatalogWeights(maximum=100, minimum=10)


def plan(
    entries: dict[str, int], mountpoint: str = "", weights: CatalogWeights = WEIGHTS
) -> list[str]:
    chosen = plan_catalogs(
        mountpoint.encode(), {path.encode(): count for path, count in entries.items()}, weights
    )
    return [path.decode() for path in chosen]


def test_a_catalog_that_is_light_enough_stays_whole() -> None:
    # With its root entry it has 100.
    assert plan({"": 2, "/a": 50, "/b": 47}) == []
    assert plan({}) == []


def test_the_heaviest_subtree_goes_first_and_no_more_than_needed() -> None:
    assert plan({"": 3, "/a": 30, "/b": 40, "/c": 35}) == ["/b"]
    assert plan({"": 4, "/a": 60, "/b": 70, "/c": 50, "/d": 30}) == ["/a", "/b"]


def test_of_equals_the_first_by_name_goes() -> None:
    assert plan({"": 3, "/c": 40, "/a": 40, "/b": 40}) == ["/a"]


def test_the_order_of_the_directories_does_not_matter() -> None:
    entries = {"": 3, "/a": 80, "/b": 2, "/b/x": 60, "/b/y": 60, "/b/x/z": 0}
    assert plan(entries) == plan(dict(reversed(entries.items()))) != []


def test_large_subtrees_are_preferred_to_what_is_in_them() -> None:
    assert plan({"": 2, "/a": 3, "/a/x": 20, "/a/y": 20, "/a/z": 20, "/b": 60}) == ["/a"]


def test_a_subtree_that_is_too_heavy_is_split_from_below() -> None:
    entries = {"": 1, "/a": 3, "/a/x": 70, "/a/y": 60, "/a/z": 50}
    assert plan(entries) == ["/a/x", "/a/y"]


def test_subtrees_split_again_until_all_fit() -> None:
    entries = {"": 1, "/a": 3, "/a/x": 60, "/a/y": 60, "/a/z": 90}
    assert plan(entries) == ["/a/x", "/a/z"]
    assert plan({**entries, "": 2, "/b": 90}) == ["/a/x", "/a/z", "/b"]


def test_room_is_left_for_the_markers() -> None:
    # Root entry, 97 entries and two markers are 100; with one entry more /a must give away /a/b.
    assert plan({"": 60, "/a": 47, "/a/b": 50}) == ["/a"]
    assert plan({"": 60, "/a": 47, "/a/b": 51}) == ["/a", "/a/b"]


def test_nothing_below_the_minimum_becomes_a_catalog() -> None:
    # The root entry of a catalog counts: nine entries make ten.
    assert plan({"": 95, "/a": 8, "/b": 8}) == []
    assert plan({"": 95, "/a": 8, "/b": 9}) == ["/b"]


def test_an_empty_directory_is_not_worth_a_catalog() -> None:
    assert plan({"": 5, "/a": 0, "/b": 0}, weights=CatalogWeights(4, 1)) == []


def test_a_flat_directory_cannot_be_split_but_can_be_set_apart() -> None:
    assert plan({"": 5000}) == []
    assert plan({"": 3, "/flat": 5000, "/a": 40}) == ["/flat"]


def test_what_surrounds_a_flat_directory_is_split_off_it() -> None:
    assert plan({"": 5000, "/a": 40, "/b": 5}) == ["/a"]


def test_a_deep_chain_is_cut_into_lengths() -> None:
    path, entries = "", {}
    for _ in range(1, 1000):
        entries[path] = 1
        path += "/d"
    entries[path] = 0
    chosen = plan(entries)
    assert len(chosen) == 10
    depths = [path.count("/") for path in chosen]
    assert depths == sorted(depths)
    assert all(90 <= b - a <= 100 for a, b in itertools.pairwise(depths))


def test_directories_without_entries_may_be_missing() -> None:
    assert plan({"": 1, "/a/b/c": 80, "/a/b/d": 80}) == ["/a/b/c"]


def test_names_that_begin_alike_are_not_confused() -> None:
    assert plan({"": 2, "/a": 60, "/a-b": 60, "/a/x": 0}) == ["/a"]


def test_a_nested_catalog_is_split_at_its_own_directories() -> None:
    assert plan({"/sw": 2, "/sw/a": 60, "/sw/b": 60}, "/sw") == ["/sw/a"]


def test_parents_come_before_what_is_below_them() -> None:
    entries = {"": 70, "/a": 90, "/a/b": 90, "/a-": 90}
    assert plan(entries) == ["/a", "/a/b", "/a-"]


def test_the_root_is_never_chosen() -> None:
    assert plan({"/sw": 5000}, "/sw") == []
    assert "" not in plan({"": 5000, "/a": 5000})


def test_directories_of_another_catalog_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="/other"):
        plan({"/sw": 200, "/other": 1}, "/sw")
    with pytest.raises(ValueError, match="/swx"):
        plan({"/sw": 200, "/swx": 1}, "/sw")


@pytest.mark.parametrize(("maximum", "minimum"), [(10, 11), (0, 0), (10, 0), (-5, -10)], ids=str)
def test_weights_that_cannot_be_are_refused(maximum: int, minimum: int) -> None:
    with pytest.raises(ConfigError):
        CatalogWeights(maximum, minimum)


def test_the_defaults_are_the_real_servers() -> None:
    assert CatalogWeights() == CatalogWeights(100_000, 1_000)
