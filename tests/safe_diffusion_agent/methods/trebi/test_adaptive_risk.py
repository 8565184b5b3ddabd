import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_diffusion_agent import AdaptiveRisk


@given(
    st.floats(0.01, 0.9),
    st.floats(0.005, 0.5),
    st.lists(st.booleans(), min_size=1, max_size=400),
)
def test_an_adversary_cannot_exceed_the_bound(target, rate, wishes):
    """Whatever it wishes, only an episode of positive risk can be over budget."""
    risk, num_over = AdaptiveRisk(target, rate), 0
    for num_episodes, wish in enumerate(wishes, 1):
        over = wish and risk.value > 0.0
        num_over += over
        risk = risk.update(over)
        bound = target + (target + rate) / (rate * num_episodes)
        assert num_over / num_episodes <= bound + 1e-9


def test_it_finds_the_risk_that_keeps_the_target():
    """Episodes are over budget three times as often as their risk says: a third is right."""
    rng = np.random.default_rng(0)
    risk, over = AdaptiveRisk(0.1, rate=0.005), []
    for _ in range(20_000):
        over.append(rng.random() < 3.0 * risk.value)
        risk = risk.update(over[-1])
    assert np.mean(over) == pytest.approx(0.1, abs=0.003)
    assert risk.value == pytest.approx(0.1 / 3, abs=0.03)


def test_it_is_a_value():
    risk = AdaptiveRisk(0.1)
    assert risk.update(True).value < risk.value < risk.update(False).value
    assert risk.value == 0.1
    with pytest.raises(ValueError, match="target"):
        AdaptiveRisk(0.0)
