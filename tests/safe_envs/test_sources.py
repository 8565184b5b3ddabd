import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given
from hypothesis import strategies as st

from safe_envs import BudgetObservation
from safe_envs.sources import check_amount, draw, generator


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.integers(0, 1000))
def test_pairs_are_drawn_between_their_ends(a, b, seed):
    low, high = min(a, b), max(a, b)
    assert low <= draw((low, high), np.random.default_rng(seed), "budget") <= high


def test_constants_lists_and_functions():
    rng = np.random.default_rng(0)
    assert draw(3, rng, "budget") == 3.0
    assert draw(math.inf, rng, "budget") == math.inf
    assert draw(np.float32(2.5), rng, "budget") == 2.5
    assert 1.0 <= draw([1.0, 2.0], rng, "budget") <= 2.0
    assert draw(lambda rng: 7.0, rng, "budget") == 7.0


@pytest.mark.parametrize("amount", ["much", "5", None, True, {}, [1.0, None], [[1.0], [2.0, 3.0]]])
def test_what_is_not_a_number_is_refused(amount):
    with pytest.raises((TypeError, ValueError)):
        check_amount(amount, "budget")


@pytest.mark.parametrize(
    "source", [(1.0, 2.0, 3.0), [], (2.0, 1.0), (0.0, math.inf), lambda rng: -1.0]
)
def test_what_is_not_a_source_is_refused(source):
    with pytest.raises((TypeError, ValueError), match="A budget"):
        draw(source, np.random.default_rng(0), "budget")


def test_streams_are_independent_of_the_environments_own():
    own = np.random.default_rng(5).uniform(size=4)
    drawn = [generator(5, stream).uniform(size=4) for stream in (1, 2)]
    assert not np.isclose(own, drawn[0]).any()
    assert not np.isclose(drawn[0], drawn[1]).any()
    np.testing.assert_array_equal(generator(5, 1).uniform(size=4), drawn[0])
    assert generator([5, None, 6], 1).uniform() == generator([5, 6], 1).uniform()
    assert generator(None, 1).uniform() != generator(None, 1).uniform()


def test_start_and_budget_of_a_seed_are_not_correlated():
    env = BudgetObservation(gym.make("safe/Pendulum-v0", mode="train"), budget=(0.0, 1.0))
    starts, budgets = [], []
    for seed in range(300):
        _, info = env.reset(seed=seed)
        starts.append(env.unwrapped.state[0])
        budgets.append(info["remaining_budget"])
    assert abs(np.corrcoef(starts, budgets)[0, 1]) < 0.2


def test_a_range_of_budgets_survives_a_json_spec():
    """A tuple becomes a list there."""
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=(5.0, 8.0))
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))
    for seed in range(3):
        theirs = rebuilt.reset(seed=seed)[1]["remaining_budget"]
        assert env.reset(seed=seed)[1]["remaining_budget"] == theirs
        assert 5.0 <= theirs <= 8.0
