import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats
from scipy.stats import binomtest

from safe_diffusion_agent.statistics import BoxStatistics, wilson_interval


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
