"""How often 95% intervals hold the truth: test sets are simulated whose truth is known, and scored a thousand times.

python benchmarks/intervals.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np

from polydistill.evaluation.turns import PROCESSES, summary
from polydistill.metrics.items import Measured, f_measure, mean_of
from polydistill.metrics.paired import interval, middle, paired_difference, resampled, resampled_means
from polydistill.metrics.seeds import mean_difference

SETS, RESAMPLES, SEED = 1000, 1000, 0
Interval = tuple[float, float]
Make = Callable[[np.random.Generator, int], list[Interval]]
Section = tuple[str, list[str], list[list[str]]]


def main() -> None:
    """Simulates and writes the tables."""
    parts = [
        f"Each row is {SETS:,} simulated test sets with {RESAMPLES:,} resamples each, seed {SEED}. A 95% interval "
        "should hold the truth in 95 of 100; the standard error of what is counted here is .7. *Shared* is the "
        "correlation of what makes answers right, within an item or a paragraph. No model and no real data."
    ]
    for title, header, rows in (averages(), unrelated(), paragraphs(), small(), seeds(), processes()):
        parts.append(f"## {title}\n\n{measure.table(header, rows)}")
    measure.write_section(
        Path(__file__).with_suffix(".md"),
        "intervals",
        "python benchmarks/intervals.py",
        "\n\n".join(parts),
        measure.versions("polydistill", "numpy", "scipy"),
    )


def held(truth: float, make: Make) -> list[str]:
    """Share of simulated sets whose intervals hold the truth, for each of the intervals that `make` gives."""
    rng, found = np.random.default_rng(SEED), []
    for seed in range(SETS):
        found.append([low <= truth <= high for low, high in make(rng, seed)])
    return [f"{share:.1%}" for share in np.mean(found, axis=0)]


def right(rng: np.random.Generator, n: int, cells: int, shared: float) -> np.ndarray:
    """(n, cells) answers, right in 70 of 100; `shared` is the correlation of what makes them so within a row."""
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, cells))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own < 0.5244005


def accuracies(found: np.ndarray, units: Sequence[object] | None = None) -> list[Measured]:
    """One accuracy a column, drawn by row, or by what is given for each row."""
    names = tuple(map(str, units if units is not None else range(len(found))))
    return [replace(mean_of("accuracy", None, column), units=names) for column in found.T]


def apart(sets: Sequence[Measured]) -> list[Measured]:
    """The same sets as if they had nothing in common."""
    return [replace(measured, units=None) for measured in sets]


def mean_interval(sets: Sequence[Measured], seed: int) -> Interval:
    """Of the mean over sets."""
    return middle(resampled_means([sets], seed=seed, resamples=RESAMPLES)[0])


def averages() -> Section:
    """Averages over languages of a parallel test set."""
    rows = []
    for name, n, cells, shared in (
        ("accuracy, 15 languages (as XNLI)", 500, 15, 0.3),
        ("accuracy, 15 languages (as XNLI)", 500, 15, 0.6),
        ("accuracy, 3 languages", 500, 3, 0.6),
        ("30 pairs of languages (G-XLT of 6)", 300, 30, 0.3),
        ("30 pairs of languages (G-XLT of 6)", 300, 30, 0.6),
    ):
        rows.append([name, f"{n}", f"{shared}", *held(0.7, means(n, cells, shared))])
    rows.append(["F1 of entities, 8 languages", "400", "0.6", *held(*entities(400, 8, 0.6))])
    rows.append(["difference of two models' averages, 15 languages", "500", "0.6", *held(*differences(500, 15, 0.6))])
    return (
        "Averages over languages whose items are translations of each other",
        ["average", "items", "shared", "languages drawn apart", "items drawn once for all languages"],
        rows,
    )


def means(n: int, cells: int, shared: float) -> Make:
    """One model's mean accuracy."""

    def both(rng: np.random.Generator, seed: int) -> list[Interval]:
        sets = accuracies(right(rng, n, cells, shared))
        return [mean_interval(apart(sets), seed), mean_interval(sets, seed)]

    return both


def entities(n: int, cells: int, shared: float) -> tuple[float, Make]:
    """Sentences of two gold entities each, and an entity too many in one of five: F1 is 2 x .7 x 2 / (2 + 2.2)."""

    def both(rng: np.random.Generator, seed: int) -> list[Interval]:
        first, second = right(rng, n, cells, shared), right(rng, n, cells, shared)
        more = rng.random((n, 1)) < 0.2
        sets = [
            Measured(
                "f1",
                "conlleval",
                np.stack([a + b, 2.0 + more[:, 0], np.full(n, 2.0)], axis=1),
                f_measure,
                units=tuple(map(str, range(n))),
            )
            for a, b in zip(first.T.astype(int), second.T.astype(int), strict=True)
        ]
        return [mean_interval(apart(sets), seed), mean_interval(sets, seed)]

    return 2 * 1.4 / 4.2, both


def differences(n: int, cells: int, shared: float) -> tuple[float, Make]:
    """Two models, the second of which loses an item in all languages at once in 3 of 100."""

    def both(rng: np.random.Generator, seed: int) -> list[Interval]:
        better = right(rng, n, cells, shared)
        worse = better & (rng.random((n, 1)) > 0.03)
        pair = [accuracies(better), accuracies(worse)]
        found = []
        for sets in ([apart(own) for own in pair], pair):
            one, other = resampled_means(sets, seed=seed, resamples=RESAMPLES)
            found.append(middle(one - other))
        return found

    return 0.7 * 0.03, both


def unrelated() -> Section:
    """Sets that have nothing in common but their line numbers."""
    return (
        "Averages over languages whose items only have the same line numbers",
        ["average", "items", "languages drawn apart", "items drawn once for all languages"],
        [["accuracy, 8 languages", "300", *held(0.7, means(300, 8, 0.0))]],
    )


def paragraphs() -> Section:
    """Questions about paragraphs, as in XQuAD: 1,190 about 240."""

    def about(shared: float) -> Make:
        def both(rng: np.random.Generator, seed: int) -> list[Interval]:
            (found,) = accuracies(right(rng, 240, 5, shared).reshape(-1, 1), np.repeat(np.arange(240), 5).tolist())
            return [interval(m, seed=seed, resamples=RESAMPLES) for m in (replace(found, units=None), found)]

        return both

    return (
        "One language, several questions about a paragraph",
        ["paragraphs x questions", "shared", "questions drawn", "paragraphs drawn"],
        [["240 x 5", f"{shared}", *held(0.7, about(shared))] for shared in (0.0, 0.1, 0.3, 0.5)],
    )


def small() -> Section:
    """Differences of two models on few items, of which they disagree on few."""

    def models(n: int, lost: float, won: float) -> Make:
        def one(rng: np.random.Generator, seed: int) -> list[Interval]:
            luck = rng.random(n)
            first, second = luck < lost, (luck >= lost) & (luck < lost + won)
            a, b = (mean_of("accuracy", None, only | (luck > 0.5)) for only in (first, second))
            return [paired_difference(a, b, seed=seed, resamples=RESAMPLES).interval]

        return one

    shares = ((0.05, 0.0), (0.05, 0.05), (0.2, 0.1))
    return (
        "Differences of two models on few items",
        ["items", *(f"only one is right: {lost:.0%} and {won:.0%}" for lost, won in shares)],
        [
            [f"{n}", *(held(lost - won, models(n, lost, won))[0] for lost, won in shares)]
            for n in (20, 50, 100, 300, 1000)
        ],
    )


def seeds() -> Section:
    """Two equally good methods with three seeds each, on the same items."""
    rows = []
    for spread in (0.0, 0.5, 1.0, 2.0):
        rows.append([f"{spread} points", *held(0.0, three_seeds(600, 3, spread / 100))])
    return (
        "Differences of two methods, 600 items and 3 seeds",
        [
            "standard deviation over seeds",
            "one seed, items drawn",
            "3 seeds, items drawn",
            "3 seeds, items and seeds drawn",
            "3 seeds, t over seeds alone",
            "3 seeds, items and seeds (`mean_difference`)",
        ],
        rows,
    )


def three_seeds(n: int, k: int, spread: float) -> Make:
    """Items that are hard for all models alike, models that are better or worse by their seed, and chance."""
    from scipy.stats import t

    def all_of(rng: np.random.Generator, seed: int) -> list[Interval]:
        hard = rng.standard_normal((n, 1))
        luck = spread / 0.348 * rng.standard_normal(2 * k)  # the normal density at .5244: 1 is .348 of the items
        answers = np.sqrt(0.8) * hard + np.sqrt(0.2) * rng.standard_normal((n, 2 * k)) + luck < 0.5244005
        models = accuracies(answers)
        first, second = models[:k], models[k:]
        draws = resampled(models, seed=seed, resamples=RESAMPLES)
        by_seed = draws[:k] - draws[k:]
        picked = rng.integers(0, k, size=(k, RESAMPLES))
        both = np.take_along_axis(by_seed, picked, axis=0).mean(axis=0)
        values = [a.value - b.value for a, b in zip(first, second, strict=True)]
        half = float(t.ppf(0.975, k - 1)) * float(np.std(values, ddof=1)) / np.sqrt(k)
        mean = float(np.mean(values))
        found = mean_difference(first, second, seed=seed, resamples=RESAMPLES)
        return [
            middle(by_seed[0]),
            middle(by_seed.mean(axis=0)),
            middle(both),
            (mean - half, mean + half),
            found.interval,
        ]

    return all_of


def processes() -> Section:
    """Ratios of times: a process is faster or slower as a whole, and its rounds differ a little."""

    def timed(between: float, within: float) -> Make:
        def both(rng: np.random.Generator, seed: int) -> list[Interval]:
            shape = (PROCESSES, 7)
            ratios = np.log(0.55) + between * rng.standard_normal((PROCESSES, 1)) + within * rng.standard_normal(shape)
            one = np.exp(ratios[0])[np.random.default_rng(seed).integers(0, 7, (RESAMPLES, 7))].mean(axis=1)
            several = [{"a": (1.0, 1.0), "b": (float(np.exp(own.mean())), 1.0)} for own in ratios]
            return [middle(one), tuple(summary(several)[1]["latency_ratio"]["interval"])]

        return both

    return (
        "Ratios of times",
        ["between processes", "between rounds", "7 rounds of one process, bootstrap", f"{PROCESSES} processes, t"],
        [[f"{b:.0%}", f"{w:.0%}", *held(0.55, timed(b, w))] for b, w in ((0.05, 0.01), (0.02, 0.02), (0.0, 0.02))],
    )


if __name__ == "__main__":
    main()
