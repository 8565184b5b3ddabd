import numpy as np
import pytest
import torch

from safe_diffusion_agent.episodes import Episodes
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
    normalizer = Normalizer.fit(episodes)
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
            episodes,
            Normalizer.fit(episodes),
            horizon,
            discount=1,
            cost_discount=1,
            coverage="inside",
        )
        assert len(windows) == seen


def test_mask_ends_at_the_time_limit_and_not_at_a_termination():
    episodes = make_episodes([6, 10], limit=10)
    windows = Windows(
        episodes, Normalizer.fit(episodes), 4, discount=1, cost_discount=1, coverage="all"
    )
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
            Normalizer.fit(episodes),
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


def test_batches_are_drawn_by_the_generator_alone():
    episodes = make_episodes([10, 10], limit=10)
    windows = Windows(
        episodes, Normalizer.fit(episodes), 4, discount=1, cost_discount=1, coverage="all"
    )
    first, again = (windows.sample(8, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first.trajectories, again.trajectories)


def test_windows_that_cannot_be_are_refused():
    episodes = make_episodes([10], limit=10)
    with pytest.raises(ValueError, match="No episode is as long as the horizon"):
        Windows(
            episodes, Normalizer.fit(episodes), 16, discount=1, cost_discount=1, coverage="inside"
        )
    unlimited = make_episodes([10], limit=None)
    with pytest.raises(ValueError, match="time limit"):
        Windows(
            unlimited, Normalizer.fit(unlimited), 4, discount=1, cost_discount=1, coverage="all"
        )
