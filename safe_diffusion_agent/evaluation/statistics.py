"""Statistics of evaluated episodes: shares with intervals, box plots, tails, means over seeds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054  # 0.975-quantile of the standard normal distribution


def wilson_interval(num_hits: int, num_trials: int) -> tuple[float, float]:
    """Returns 95 % confidence interval of a share (Wilson 1927), in [0, 1].

    Raises:
        ValueError: There are no trials, or more hits than trials.
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0:
        raise ValueError(f"A share needs 0 <= hits <= trials. Received {num_hits}/{num_trials}.")
    share = num_hits / num_trials
    spread = Z_95**2 / num_trials
    center = (share + spread / 2) / (1 + spread)
    root = math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials))
    half_width = Z_95 * root / (1 + spread)
    return max(0.0, center - half_width), min(1.0, center + half_width)


@dataclass(frozen=True)
class BoxStatistics:
    """What a box-and-whisker plot shows (Lin et al. 2023, Sec. 5.1).

    Attributes:
        q1: Lower quartile.
        median: Median.
        q3: Upper quartile.
        mean: Mean.
        whisker_low: Smallest value within 1.5 (q3 - q1) of the box.
        whisker_high: Largest value within 1.5 (q3 - q1) of the box.
        maximum: Largest value.
    """

    q1: float
    median: float
    q3: float
    mean: float
    whisker_low: float
    whisker_high: float
    maximum: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "BoxStatistics":
        """Returns statistics of a non-empty sample."""
        sample = np.asarray(values, np.float64)
        q1, median, q3 = np.quantile(sample, [0.25, 0.5, 0.75])
        reach = 1.5 * (q3 - q1)
        inside = sample[(sample >= q1 - reach) & (sample <= q3 + reach)]
        return cls(
            q1=float(q1),
            median=float(median),
            q3=float(q3),
            mean=float(sample.mean()),
            whisker_low=float(inside.min()),
            whisker_high=float(inside.max()),
            maximum=float(sample.max()),
        )


def conditional_value_at_risk(values: npt.ArrayLike, tail: float = 0.05) -> float:
    """Returns the mean of the largest `tail` share of a sample (Rockafellar and Uryasev 2000).

    It is the smallest value over c of  c + E[(x - c)_+] / tail.  Where the tail ends between two
    values, the smaller one counts in part.

    Args:
        values: Not empty, such as the cost beyond the budget, max(cost - budget, 0).
        tail: In (0, 1].

    Raises:
        ValueError: There are no values, or the tail is not in (0, 1].
    """
    sample = np.sort(np.asarray(values, np.float64).ravel())[::-1]
    if len(sample) == 0 or not 0.0 < tail <= 1.0:
        raise ValueError(
            f"A tail in (0, 1] of one value or more is needed. Received {tail} of {len(sample)}."
        )
    weights = np.clip(tail * len(sample) - np.arange(len(sample)), 0.0, 1.0)
    return float(weights @ sample / weights.sum())


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Returns mean without the lowest and the highest quarter of the scores (Agarwal et al. 2021).

    A quarter is rounded down; with fewer than four scores this is the mean.

    Raises:
        ValueError: There are no scores.
    """
    sample = np.sort(np.asarray(scores, np.float64).ravel())
    if len(sample) == 0:
        raise ValueError("An interquartile mean needs at least one score.")
    cut = len(sample) // 4
    return float(sample[cut : len(sample) - cut].mean())


def bootstrap_over_runs(
    scores: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[np.float64]], float],
    *,
    rng: np.random.Generator,
    num_resamples: int = 2_000,
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic over runs.

    Whole runs are drawn again with replacement: what one training does under several budgets is not
    independent. (Agarwal et al. 2021 draw the runs of each task anew, where each has a training of
    its own.) With few runs the interval is too narrow.

    Args:
        scores: `(runs, budgets)`.
        statistic: Maps scores of that shape to a number, such as `interquartile_mean`.
        rng: Draws the resamples.
        num_resamples: How many.
    """
    table = np.asarray(scores, np.float64)
    draws = rng.integers(len(table), size=(num_resamples, len(table)))
    low, high = np.quantile([statistic(table[rows]) for rows in draws], [0.025, 0.975])
    return float(low), float(high)


def auroc(scores: npt.ArrayLike, happened: npt.ArrayLike) -> float:
    """Returns the probability that a case that happened has a higher score than one that did not.

    Ties count one half. It is the area under the receiver operating characteristic, and the
    Mann-Whitney statistic over the number of pairs (Hanley and McNeil 1982).

    Args:
        scores: `(n,)`, higher where it is thought more likely.
        happened: `(n,)`, booleans.

    Raises:
        ValueError: All happened, or none did.
    """
    values, hits = np.asarray(scores, np.float64), np.asarray(happened, np.bool_)
    num_hits, num_misses = int(hits.sum()), int((~hits).sum())
    if not num_hits or not num_misses:
        raise ValueError(f"Both outcomes are needed. Received {num_hits} of {len(hits)}.")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2  # of tied scores, from 1
    rank_sum = float(mean_ranks[place][hits].sum())
    return (rank_sum - num_hits * (num_hits + 1) / 2) / (num_hits * num_misses)


def calibration_curve(
    forecasts: npt.ArrayLike, happened: npt.ArrayLike, num_bins: int = 10
) -> list[dict[str, Any]]:
    """Returns forecast against observed share, in bins of equal width; empty bins are left out.

    Args:
        forecasts: `(n,)`, probabilities.
        happened: `(n,)`, booleans.
        num_bins: Number of bins of [0, 1].

    Returns:
        For each bin `"num_cases"`, `"num_hits"`, how many happened, and `"mean_forecast"`.

    Raises:
        ValueError: A forecast is outside [0, 1].
    """
    probabilities, hits = np.asarray(forecasts, np.float64), np.asarray(happened, np.bool_)
    if not ((probabilities >= 0.0) & (probabilities <= 1.0)).all():
        raise ValueError("Forecasts should be in [0, 1].")
    place = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    bins = []
    for index in np.unique(place):
        chosen = place == index
        bins.append(
            {
                "num_cases": int(chosen.sum()),
                "num_hits": int(hits[chosen].sum()),
                "mean_forecast": float(probabilities[chosen].mean()),
            }
        )
    return bins


def brier_score(forecasts: npt.ArrayLike, happened: npt.ArrayLike) -> float:
    """Returns mean squared difference of forecast and outcome (Brier 1950); 0 is perfect."""
    difference = np.asarray(forecasts, np.float64) - np.asarray(happened, np.float64)
    return float(np.mean(difference**2))
