import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats
from scipy.stats import binomtest, bootstrap, trim_mean

from safe_diffusion_agent.evaluation.statistics import (
    BoxStatistics,
    bootstrap_over_runs,
    conditional_value_at_risk,
    interquartile_mean,
    wilson_interval,
)


@given(st.integers(1, 300), st.data())
def test_wilson_interval_is_scipys(num_trials, data):
    num_hits = data.draw(st.integers(0, num_trials))
    expected = binomtest(num_hits, num_trials).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(num_hits, num_trials)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 <= hits <= trials"):
        wilson_interval(0, 0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_box_statistics_are_matplotlibs(values):
    (expected,) = boxplot_stats(np.array(values), whis=1.5)
    box = BoxStatistics.of(values)
    for mine, theirs in (
        (box.q1, expected["q1"]),
        (box.median, expected["med"]),
        (box.q3, expected["q3"]),
        (box.mean, expected["mean"]),
    ):
        assert mine == pytest.approx(theirs, abs=1e-9)
    assert box.maximum == max(values)
    inside = [v for v in values if v <= expected["q3"] + 1.5 * expected["iqr"]]
    assert box.whisker_high == max(inside)


samples = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


@given(samples, st.floats(0.01, 1.0))
def test_cvar_is_the_minimum_of_its_variational_form(values, tail):
    """The minimum is attained at one of the values, so that all can be tried."""
    x = np.array(values)
    tried = [c + np.maximum(x - c, 0.0).mean() / tail for c in x]
    assert conditional_value_at_risk(values, tail) == pytest.approx(min(tried), abs=1e-6)


def test_cvar_by_hand():
    values = [0.0] * 8 + [3.0, 5.0]
    assert conditional_value_at_risk(values, 0.1) == 5.0
    assert conditional_value_at_risk(values, 0.15) == pytest.approx((5.0 + 0.5 * 3.0) / 1.5)
    assert conditional_value_at_risk(values, 1.0) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="tail in"):
        conditional_value_at_risk(values, 0.0)


@given(samples)
def test_interquartile_mean_is_scipys_trimmed_mean(values):
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25), abs=1e-9)


def test_bootstrap_interval_is_scipys():
    scores = np.random.default_rng(0).normal(5.0, 2.0, (20, 1))
    low, high = bootstrap_over_runs(
        scores, np.mean, rng=np.random.default_rng(1), num_resamples=5_000
    )
    expected = bootstrap(
        (scores[:, 0],), np.mean, n_resamples=5_000, method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert low == pytest.approx(expected.low, abs=0.05)
    assert high == pytest.approx(expected.high, abs=0.05)


def test_budgets_of_a_run_are_drawn_together():
    """Runs that are better under one budget and worse under another are all worth the same."""
    first = np.random.default_rng(0).normal(size=6)
    scores = np.stack([first, 10.0 - first], axis=1)
    low, high = bootstrap_over_runs(scores, np.mean, rng=np.random.default_rng(0))
    assert low == pytest.approx(5.0) and high == pytest.approx(5.0)
    alike = np.stack([first, first], axis=1)  # a budget more tells nothing more
    rngs = [np.random.default_rng(1), np.random.default_rng(1)]
    expected = bootstrap_over_runs(first[:, None], np.mean, rng=rngs[0])
    assert bootstrap_over_runs(alike, np.mean, rng=rngs[1]) == pytest.approx(expected)
