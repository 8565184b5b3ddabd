import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safe_diffusion_agent.episodes import Episodes, values_to_go
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, time_limit_mask
from safe_diffusion_agent.methods.trebi.windows import Windows


def make_episodes(lengths, limit, terminated=None, seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    num = int(lengths.sum())
    return Episodes(
        observations=rng.normal(size=(num + len(lengths), 3)).astype(np.float32),
        actions=rng.uniform(-2, 2, size=(num, 2)).astype(np.float32),
        rewards=rng.normal(size=num),
        costs=rng.uniform(size=num),
        lengths=lengths,
        terminated=np.array(terminated or [length < (limit or 0) for length in lengths]),
        action_low=np.full(2, -2, np.float32),
        action_high=np.full(2, 2, np.float32),
        dataset_id="tests/made-up-v0",
        env_id=None,
        max_episode_steps=limit,
        cost_discount=1.0,
        max_budget=1.0,
        metadata={},
    )


def fitted(episodes):
    return Normalizer.fit(
        episodes.actions, episodes.observations, episodes.action_low, episodes.action_high
    )


def brute_force_window(episodes, normalizer, episode, start, horizon):
    """One window, entry by entry, in environment units; None where there is nothing."""
    first_step = int(episodes.lengths[:episode].sum())
    first_row, length = first_step + episode, int(episodes.lengths[episode])
    window = np.zeros((horizon, 5))
    for k in range(horizon):
        t = start + k
        if t < length:
            action = episodes.actions[first_step + t]
            window[k, :2] = (action - normalizer.mean[:2].numpy()) / normalizer.std[:2].numpy()
        if t <= length:
            obs = episodes.observations[first_row + t]
            window[k, 2:] = (obs - normalizer.mean[2:].numpy()) / normalizer.std[2:].numpy()
    return window


@pytest.mark.parametrize("coverage", ["inside", "all"])
def test_every_window_is_the_slice_of_its_episode(coverage):
    episodes, horizon, limit = make_episodes([10, 4, 10, 7], limit=10), 4, 10
    normalizer = fitted(episodes)
    windows = Windows(
        episodes, normalizer, horizon, discount=0.9, cost_discount=0.8, coverage=coverage
    )
    expected = []
    for episode, length in enumerate(episodes.lengths):
        last = length if coverage == "all" else min(length, limit - horizon + 1)
        expected += [(episode, start) for start in range(last)]
    assert len(windows) == len(expected)
    batch = windows.get(torch.arange(len(windows)))
    for index, (episode, start) in enumerate(expected):
        window = brute_force_window(episodes, normalizer, episode, start, horizon)
        np.testing.assert_allclose(batch.trajectories[index], window, atol=1e-5)
        first, length = int(episodes.lengths[:episode].sum()), int(episodes.lengths[episode])
        to_go = slice(first + start, first + length)
        powers = np.arange(length - start)
        assert batch.returns[index] == pytest.approx(
            float(episodes.rewards[to_go] @ 0.9**powers), abs=1e-4
        )
        assert batch.costs[index] == pytest.approx(
            float(episodes.costs[to_go] @ 0.8**powers), abs=1e-4
        )
        assert batch.remaining_steps[index] == limit - start


def test_inside_leaves_out_the_end_as_diffuser_does():
    """Starts seen of 200, 50 and 1000 steps with the paper's horizons: 73, 19 and 969."""
    for length, horizon, seen in ((200, 128, 73), (50, 32, 19), (1000, 32, 969)):
        episodes = make_episodes([length], limit=length)
        windows = Windows(
            episodes, fitted(episodes), horizon, discount=1, cost_discount=1, coverage="inside"
        )
        assert len(windows) == seen


def test_mask_ends_at_the_time_limit_and_not_at_a_termination():
    episodes = make_episodes([6, 10], limit=10)
    windows = Windows(episodes, fitted(episodes), 4, discount=1, cost_discount=1, coverage="all")
    masks = windows.get(torch.arange(len(windows))).mask
    assert (masks[5] == 1).all()  # 5 steps before the limit, although the episode ends after 1
    last = masks[-1]  # one step left: one action, two observations
    assert last[:, 0].tolist() == [1, 0, 0, 0]
    assert last[:, 2].tolist() == [1, 1, 0, 0]


def test_mask_of_remaining_steps():
    mask = time_limit_mask(torch.tensor([1, 2, 5]), horizon=3, act_dim=1, dim=2)
    assert mask[:, :, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask[:, :, 1].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_termination_penalty_is_charged_once_and_leaves_the_data_alone():
    """The released code adds it to a view of the stored costs, again at every access."""
    episodes = make_episodes([3, 4], limit=4, terminated=[True, False])
    before = episodes.costs.copy()
    for _ in range(2):
        windows = Windows(
            episodes,
            fitted(episodes),
            2,
            discount=1,
            cost_discount=1,
            coverage="all",
            termination_penalty=100.0,
        )
        assert windows.costs[0] == pytest.approx(before[:3].sum() + 100.0, abs=1e-4)
        assert windows.returns[0] == pytest.approx(episodes.rewards[:3].sum() - 100.0, abs=1e-4)
        assert windows.costs[3] == pytest.approx(before[3:].sum(), abs=1e-4)
    np.testing.assert_array_equal(episodes.costs, before)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from([1.0, 0.99, 0.5]),
    st.integers(0, 1000),
)  # fmt: skip
def test_values_to_go_are_the_sums_of_the_definition(lengths, discount, seed):
    values = np.random.default_rng(seed).normal(size=sum(lengths))
    result = values_to_go(values, np.array(lengths), discount)
    start = 0
    for length in lengths:
        for t in range(length):
            expected = sum(discount**k * values[start + t + k] for k in range(length - t))
            assert result[start + t] == pytest.approx(expected, abs=1e-9)
        start += length


def test_batches_are_drawn_by_the_generator_alone():
    episodes = make_episodes([10, 10], limit=10)
    windows = Windows(episodes, fitted(episodes), 4, discount=1, cost_discount=1, coverage="all")
    first, again = (windows.sample(8, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first.trajectories, again.trajectories)


def test_windows_that_cannot_be_are_refused():
    episodes = make_episodes([10], limit=10)
    with pytest.raises(ValueError, match="No episode is as long as the horizon"):
        Windows(episodes, fitted(episodes), 16, discount=1, cost_discount=1, coverage="inside")
    unlimited = make_episodes([10], limit=None)
    with pytest.raises(ValueError, match="time limit"):
        Windows(unlimited, fitted(unlimited), 4, discount=1, cost_discount=1, coverage="all")


def test_normalizer_is_gaussian_and_leaves_constant_dimensions_alone():
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, 2.0, size=(500, 2))
    observations[:, 1] = 1.0 + 1e-9 * rng.normal(size=500)  # a constant, but for rounding
    actions = rng.uniform(-1, 1, size=(500, 1))
    normalizer = Normalizer.fit(actions, observations, [-2.0], [2.0])
    rows = torch.tensor(np.concatenate([actions, observations], axis=1), dtype=torch.float32)
    normalised = normalizer.normalize(rows)
    np.testing.assert_allclose(normalised.mean(dim=0), [0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(normalised.std(dim=0), [1, 1, 0], atol=2e-3)
    torch.testing.assert_close(normalizer.unnormalize(normalised), rows)
    bounds = normalizer.unnormalize(torch.stack([normalizer.low, normalizer.high]))
    np.testing.assert_allclose(bounds[:, 0], [-2.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(bounds[:, 1], [observations[:, 0].min(), observations[:, 0].max()],
                               rtol=1e-5)  # fmt: skip
