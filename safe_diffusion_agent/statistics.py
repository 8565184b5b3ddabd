"""Statistics of evaluated episodes: shares with confidence intervals, and box plots."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054  # 0.975-quantile of the standard normal distribution


def wilson_interval(num_hits: int, num_trials: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927), in [0, 1].

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
        """Statistics of a non-empty sample."""
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
