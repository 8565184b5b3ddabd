"""How good forecasts of yes or no are: do they separate the two, and do they mean what they say?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.statistics import wilson_interval


def auroc(scores: npt.ArrayLike, happened: npt.ArrayLike) -> float:
    """Probability that a case that happened has a higher score than one that did not.

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


@dataclass(frozen=True)
class Bin:
    """Forecasts between two probabilities, and what came of them.

    Attributes:
        low: Smallest forecast.
        high: Largest forecast; not included, unless it is 1.
        num_cases: Forecasts in it.
        num_hits: How many happened.
        mean_forecast: Of the cases.
        share: Of the cases that happened.
        wilson_95: Its 95 % Wilson interval.
    """

    low: float
    high: float
    num_cases: int
    num_hits: int
    mean_forecast: float
    share: float
    wilson_95: tuple[float, float]


def calibration_curve(
    forecasts: npt.ArrayLike, happened: npt.ArrayLike, num_bins: int = 10
) -> list[Bin]:
    """Forecast against observed share, in bins of equal width; empty bins are left out.

    Args:
        forecasts: `(n,)`, probabilities.
        happened: `(n,)`, booleans.
        num_bins: Number of bins of [0, 1].

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
        num, num_hits = int(chosen.sum()), int(hits[chosen].sum())
        bins.append(
            Bin(
                low=float(index / num_bins),
                high=float((index + 1) / num_bins),
                num_cases=num,
                num_hits=num_hits,
                mean_forecast=float(probabilities[chosen].mean()),
                share=num_hits / num,
                wilson_95=wilson_interval(num_hits, num),
            )
        )
    return bins


def brier_score(forecasts: npt.ArrayLike, happened: npt.ArrayLike) -> float:
    """Mean squared difference of forecast and outcome (Brier 1950); 0 is perfect."""
    difference = np.asarray(forecasts, np.float64) - np.asarray(happened, np.float64)
    return float(np.mean(difference**2))
