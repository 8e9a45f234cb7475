"""Maximum mean discrepancy between two sets of cells: without bias, with a test and an interval; good at few cells.

All of it comes from one matrix: the kernel summed over pairs of random groups of cells, each pair of two *different*
cells. It is made in tiles, so memory does not grow with the number of cells, though time grows with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytolib.evaluate.blocks import check_pair, row_blocks

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array, Array], Array]  # products (m, n), squared norms (m, 1) and (n,) to kernel values
MIN_GROUPS = 10  # of the smaller set, where it has as many cells: a bootstrap of fewer says little
MEDIAN_CELLS = 1000  # of the pooled cells whose distances give the default bandwidth


@dataclass(frozen=True)
class KernelTest:
    """Squared discrepancy, p value of "both sets have one distribution", and the ends of the 95 % interval."""

    value: float
    p_value: float
    low: float
    high: float


def kernel_distance(
    real: np.ndarray, synthetic: np.ndarray, *, kernel: str = "cubic", bandwidth: float | None = None, seed: int = 0
) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012), over all pairs of different cells.

    May be slightly negative for equal distributions: its mean is then 0 at any n.

    Args:
        real, synthetic: (N, D) embeddings, memory maps too.
        kernel: "cubic", (x.y / D + 1)^3 (KID, Binkowski et al. 2018), or "rbf", exp(-|x - y|^2 / (2 bandwidth^2)).
        bandwidth: of "rbf"; None takes the median distance of two cells, of both sets pooled (a subsample by ``seed``).

    Raises:
        ValueError: of sets that :func:`~cytolib.evaluate.blocks.check_pair` refuses, of an unknown kernel.
    """
    real, synthetic = check_pair(real, synthetic)
    m, n = len(real), len(synthetic)
    sums = _group_sums(
        [real, synthetic],
        [np.zeros(m, np.int64), np.ones(n, np.int64)],
        _kernel(kernel, real, synthetic, bandwidth, seed),
    )
    return float(_discrepancy(sums, np.array([[1.0, 0.0]]), m, n)[0])


def kernel_test(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    kernel: str = "cubic",
    bandwidth: float | None = None,
    permutations: int = 199,
    groups: int = 50,
    draws: int = 1000,
    seed: int = 0,
) -> KernelTest:
    """:func:`kernel_distance` with a permutation p value and a bootstrap interval.

    Rows are put at random into groups of one size b, about ``groups`` a set (a row a group where cells are few).

    *Test.* A permutation exchanges whole groups between the sets. Groups of one size keep both sets at their sizes, and
    the fewer than b rows of a set that fill no group stay where they are, so these are permutations of the rows that
    form a group: p = (1 + #{permuted >= observed}) / (1 + permutations) is valid at any n. The bandwidth is a function
    of the pooled cells, blind to the sets.

    *Interval.* Groups are drawn with replacement in each set. A cell drawn twice would meet itself, which inflates a
    discrepancy, so a draw takes pairs of cells of different groups alone: it is then unbiased for the same quantity,
    and draws are shifted so that their mean is the value. The interval is about sqrt(3) times too wide where the
    distributions are equal (the statistic is degenerate there, and the p value answers); never use it as the test.

    Raises:
        ValueError: as :func:`kernel_distance`, and of no permutation, fewer than two groups or no draw.
    """
    real, synthetic = check_pair(real, synthetic)
    if min(permutations, draws) < 1 or groups < 2:
        raise ValueError(
            f"permutations {permutations}, groups {groups}, draws {draws}; expected 1 or more, 2 or more, 1 or more"
        )
    rng = np.random.default_rng(seed)
    m, n = len(real), len(synthetic)
    size = max(1, min((m + n) // (2 * groups), min(m, n) // MIN_GROUPS))
    counts = [m // size, n // size]
    # Groups 0, 1, ... of the real set, then of the synthetic one, then what is left of each.
    total = sum(counts)
    labels = [_random_groups(rng, m, size, 0, total), _random_groups(rng, n, size, counts[0], total + 1)]
    sums = _group_sums([real, synthetic], labels, _kernel(kernel, real, synthetic, bandwidth, seed), total + 2)

    is_real = np.zeros((1 + permutations, total + 2))
    is_real[:, : counts[0]], is_real[:, total] = 1, 1
    is_real[1:, :total] = rng.permuted(is_real[1:, :total], axis=1)
    values = _discrepancy(sums, is_real, m, n)
    # Equal up to rounding is equal: with a handful of cells, permutations repeat the observed sets.
    slack = 1e-12 * np.abs(sums).sum() / (m * n)
    p_value = (1 + np.count_nonzero(values[1:] >= values[0] - slack)) / (1 + permutations)

    ends = np.cumsum([0, *counts])
    weights = [rng.multinomial(k, np.full(k, 1 / k), size=draws).astype(np.float64) for k in counts]
    drawn = _drawn_discrepancy(sums, weights, ends, size)
    low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975]) + values[0]
    return KernelTest(float(values[0]), p_value, float(low), float(high))


def _random_groups(rng: np.random.Generator, n: int, size: int, first: int, rest: int) -> NDArray[np.int64]:
    """(n,) group of each row: ``first`` and on for ``size`` random rows each, ``rest`` for those that are left."""
    full = n // size
    labels = np.full(n, rest)
    labels[: full * size] = np.repeat(np.arange(first, first + full), size)
    return rng.permutation(labels)


def _discrepancy(sums: Array, is_real: Array, m: int, n: int) -> Array:
    """(P,) unbiased squared discrepancies for P ways (P, G) to call groups real (1) or synthetic (0)."""
    others = 1 - is_real
    from_real = is_real @ sums
    within = np.einsum("pg,pg->p", from_real, is_real) / (m * (m - 1))
    within += np.einsum("pg,pg->p", others @ sums, others) / (n * (n - 1))
    return within - 2 * np.einsum("pg,pg->p", from_real, others) / (m * n)


def _drawn_discrepancy(sums: Array, weights: list[Array], ends: NDArray[np.int64], size: int) -> Array:
    """(draws,) discrepancies of groups drawn ``weights`` times, over pairs of different groups of ``size`` cells."""
    a, b = slice(*ends[:2]), slice(*ends[1:3])
    # A draw that takes one group over and over has no pair of groups: it says nothing of the spread within a set.
    usable = np.all([np.count_nonzero(weight, axis=1) > 1 for weight in weights], axis=0)
    if not usable.any():
        raise ValueError(f"none of {len(usable)} bootstrap draws took two groups of cells; pass more draws or cells")
    weights = [weight[usable] for weight in weights]
    total = np.zeros(len(weights[0]))
    for part, weight in zip((a, b), weights, strict=True):
        between = sums[part, part] - np.diag(np.diag(sums[part, part]))
        pairs = weight.sum(axis=1) ** 2 - np.square(weight).sum(axis=1)
        total += np.einsum("dg,dg->d", weight @ between, weight) / (pairs * size**2)
    cross = np.einsum("dg,dg->d", weights[0] @ sums[a, b], weights[1])
    return total - 2 * cross / (weights[0].sum(axis=1) * weights[1].sum(axis=1) * size**2)


def _kernel(name: str, real: np.ndarray, synthetic: np.ndarray, bandwidth: float | None, seed: int) -> Kernel:
    dimensions = real.shape[1]
    if name == "cubic":

        def cubic(products: Array, squares: Array, other_squares: Array) -> Array:
            products = products / dimensions + 1
            return products * products * products

        return cubic
    if name != "rbf":
        raise ValueError(f"kernel is {name!r}, expected 'cubic' or 'rbf'")
    width = _median_distance(real, synthetic, seed) if bandwidth is None else bandwidth
    if not width > 0:
        raise ValueError(f"the bandwidth is {width}, expected a positive distance; half the cells may be equal")

    def rbf(products: Array, squares: Array, other_squares: Array) -> Array:
        squared = squares + other_squares - 2 * products
        return np.exp(squared.clip(0) / (-2 * width**2))

    return rbf


def _median_distance(real: np.ndarray, synthetic: np.ndarray, seed: int) -> float:
    """Median distance of two different cells of a random subset of the pooled ones."""
    m, n = len(real), len(synthetic)
    rows = np.random.default_rng((seed, 1)).choice(m + n, size=min(MEDIAN_CELLS, m + n), replace=False)
    picked = [real[np.sort(rows[rows < m])], synthetic[np.sort(rows[rows >= m] - m)]]
    X = np.concatenate(picked).astype(np.float64)
    X -= X.mean(axis=0)
    squares = np.einsum("ij,ij->i", X, X)
    squared = squares[:, None] + squares - 2 * X @ X.T
    return float(np.sqrt(np.median(squared[np.triu_indices(len(X), 1)]).clip(0)))


def _group_sums(sets: list[np.ndarray], labels: list[NDArray[np.int64]], kernel: Kernel, n_groups: int = 2) -> Array:
    """(G, G) sums of the kernel over pairs of different rows, by the groups of the two rows."""
    sums = np.zeros((n_groups, n_groups))
    for i, X in enumerate(sets):
        for rows, A in row_blocks(X):
            A, own, starts = _sorted_by_group(A, labels[i][rows])
            squares = np.einsum("ij,ij->i", A, A)
            same = kernel(squares, squares, squares)
            sums[own, own] -= np.add.reduceat(same, starts)
            # The matrix is symmetric: tiles below the diagonal are those above it, mirrored.
            for j in range(i, len(sets)):
                for columns, B in row_blocks(sets[j]):
                    if j == i and columns.start < rows.start:
                        continue
                    B, other, other_starts = _sorted_by_group(B, labels[j][columns])
                    values = kernel(A @ B.T, squares[:, None], np.einsum("ij,ij->i", B, B))
                    values = np.add.reduceat(np.add.reduceat(values, starts, axis=0), other_starts, axis=1)
                    sums[np.ix_(own, other)] += values
                    if j != i or columns.start != rows.start:
                        sums[np.ix_(other, own)] += values.T
    return sums


def _sorted_by_group(block: Array, labels: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Rows sorted by group, the groups among them, and where each starts."""
    order = np.argsort(labels, kind="stable")
    groups, starts = np.unique(labels[order], return_index=True)
    return block[order], groups, starts
