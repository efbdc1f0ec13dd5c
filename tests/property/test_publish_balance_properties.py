from __future__ import annotations

import itertools
import random

from hypothesis import assume, given
from hypothesis import strategies as st

from lazyfs.publish.balance import MARKERS, CatalogWeights, plan_catalogs
from lazyfs.repository.pathhash import ancestors

Tree = dict[bytes, int]


@st.composite
def trees(draw: st.DrawFn, most: int = 25, files: int = 40) -> Tree:
    """Directories and how many entries each has, its subdirectories among them."""
    own = st.integers(0, draw(st.integers(0, files)))
    paths = [b"/m"]
    tree: Tree = {b"/m": draw(own)}
    for number in range(draw(st.integers(0, most))):
        parent = draw(st.sampled_from(paths))
        path = parent + b"/%d" % number
        paths.append(path)
        tree[parent] += 1
        tree[path] = draw(own)
    return tree


weights = st.tuples(st.integers(4, 60), st.integers(1, 30)).map(
    lambda drawn: CatalogWeights(drawn[0], min(drawn))
)


def catalogs(tree: Tree, roots: tuple[bytes, ...]) -> dict[bytes, dict[bytes, int]]:
    """The directories of each catalog that begins at one of ``roots`` or at the top."""
    found: dict[bytes, dict[bytes, int]] = {root: {} for root in (b"/m", *roots)}
    for path, count in tree.items():
        holder = next(p for p in reversed([*ancestors(path), path]) if p in found)
        found[holder][path] = count
    return found


def weight(root: bytes, directories: dict[bytes, int]) -> int:
    return 1 + sum(directories.values()) + (MARKERS if root != b"/m" else 0)


def subtree(path: bytes, directories: dict[bytes, int]) -> int:
    below = (count for p, count in directories.items() if p == path or p.startswith(path + b"/"))
    return 1 + sum(below)


@given(trees(), weights)
def test_a_catalog_is_too_heavy_only_where_nothing_more_can_be_split_off(
    tree: Tree, bounds: CatalogWeights
) -> None:
    for root, directories in catalogs(tree, plan_catalogs(b"/m", tree, bounds)).items():
        if weight(root, directories) > bounds.maximum:
            rest = [subtree(path, directories) for path in directories if path != root]
            # An empty directory would take nothing away.
            assert all(heft < max(bounds.minimum, 2) for heft in rest)


@given(trees(), weights)
def test_no_new_catalog_is_below_the_minimum(tree: Tree, bounds: CatalogWeights) -> None:
    roots = plan_catalogs(b"/m", tree, bounds)
    parts = catalogs(tree, roots)
    assert all(subtree(root, parts[root]) >= bounds.minimum for root in roots)


@given(trees(), st.integers(4, 60))
def test_without_a_minimum_all_fit_that_are_not_flat(tree: Tree, maximum: int) -> None:
    assume(all(count + 1 + MARKERS <= maximum for count in tree.values()))
    parts = catalogs(tree, plan_catalogs(b"/m", tree, CatalogWeights(maximum, 1)))
    assert all(weight(root, directories) <= maximum for root, directories in parts.items())


@given(trees(most=9, files=8), st.integers(4, 20))
def test_no_plan_has_fewer_catalogs(tree: Tree, maximum: int) -> None:
    assume(all(count + 1 + MARKERS <= maximum for count in tree.values()))
    chosen = plan_catalogs(b"/m", tree, CatalogWeights(maximum, 1))
    others = [path for path in tree if path != b"/m"]
    sizes = range(len(chosen))
    for fewer in itertools.chain(*(itertools.combinations(others, n) for n in sizes)):
        # The top has two entries more to spare than a plan from below can count on.
        parts = catalogs(tree, fewer).values()
        assert any(1 + sum(part.values()) + MARKERS > maximum for part in parts)


@given(trees(), weights, st.randoms())
def test_a_plan_names_each_directory_once_and_is_always_the_same(
    tree: Tree, bounds: CatalogWeights, rng: random.Random
) -> None:
    roots = plan_catalogs(b"/m", tree, bounds)
    assert len(set(roots)) == len(roots)
    assert set(roots) <= tree.keys() - {b"/m"}
    shuffled = list(tree.items())
    rng.shuffle(shuffled)
    assert plan_catalogs(b"/m", dict(shuffled), bounds) == roots
    assert plan_catalogs(b"/m", {p: n for p, n in shuffled if n}, bounds) == roots


@given(trees(), weights)
def test_what_was_split_stays_split(tree: Tree, bounds: CatalogWeights) -> None:
    # Planning again for each of the catalogs that a plan makes asks for nothing new.
    for root, directories in catalogs(tree, plan_catalogs(b"/m", tree, bounds)).items():
        if weight(root, directories) <= bounds.maximum:
            grown = {**directories, root: directories[root] + (MARKERS if root != b"/m" else 0)}
            assert plan_catalogs(root, grown, bounds) == ()
