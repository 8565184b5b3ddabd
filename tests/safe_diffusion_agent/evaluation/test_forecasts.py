import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from safe_diffusion_agent.evaluation.statistics import auroc, brier_score, calibration_curve


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_auroc_counts_pairs(seed, num_values):
    """Few different scores, so that there are many ties; against all pairs, and scipy."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(num_values, size=40) / num_values
    happened = np.arange(40) < rng.integers(1, 40)
    pairs = [
        1.0 if hit > miss else 0.5 if hit == miss else 0.0
        for hit in scores[happened]
        for miss in scores[~happened]
    ]
    assert auroc(scores, happened) == pytest.approx(np.mean(pairs))
    statistic = mannwhitneyu(scores[happened], scores[~happened]).statistic
    assert auroc(scores, happened) == pytest.approx(statistic / len(pairs))


def test_auroc_needs_both_outcomes():
    with pytest.raises(ValueError, match="0 of 2"):
        auroc([0.1, 0.2], [False, False])


def test_true_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    forecasts = rng.random(50_000)
    happened = rng.random(50_000) < forecasts
    bins = calibration_curve(forecasts, happened)
    assert len(bins) == 10 and sum(b["num_cases"] for b in bins) == 50_000
    for index, b in enumerate(bins):
        assert index / 10 <= b["mean_forecast"] <= (index + 1) / 10
        assert b["num_hits"] / b["num_cases"] == pytest.approx(b["mean_forecast"], abs=0.03)
    assert brier_score(forecasts, happened) == pytest.approx(1 / 6, abs=0.01)  # E p(1 - p)


def test_bins_hold_what_they_should():
    bins = calibration_curve([0.0, 0.2, 0.49, 0.5, 1.0], [0, 1, 0, 1, 1], num_bins=2)
    assert [(b["num_cases"], b["num_hits"]) for b in bins] == [(3, 1), (2, 2)]
    expected = [{"num_cases": 2, "num_hits": 1, "mean_forecast": 0.975}]
    assert calibration_curve([0.95, 1.0], [1, 0]) == expected, "empty bins are left out"
    with pytest.raises(ValueError, match="0, 1"):
        calibration_curve([1.1], [True])
