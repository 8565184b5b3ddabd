import numpy as np
import pytest
import torch

from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.learning.transitions import Transitions, UnitNormalizer
from safe_diffusion_agent.methods.baselines.config import critic_budget
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer


def two_episodes(cost_discount=0.5) -> Episodes:
    """Three steps up to the time limit, and two that end by themselves."""
    return Episodes(
        observations=np.arange(14, dtype=np.float32).reshape(7, 2),
        actions=np.array([[-1.0], [0.0], [3.0], [1.0], [2.0]], np.float32),
        rewards=np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        costs=np.array([1.0, 4.0, 16.0, 2.0, 8.0]),
        lengths=np.array([3, 2]),
        terminated=np.array([False, True]),
        action_low=np.array([-1.0], np.float32),
        action_high=np.array([3.0], np.float32),
        dataset_id="tests/two-v0",
        env_id=None,
        max_episode_steps=3,
        cost_discount=cost_discount,
        max_budget=10.0,
        metadata={},
    )


def test_transitions_do_not_cross_episodes_and_only_terminations_end():
    episodes = two_episodes()
    normalizer = UnitNormalizer.fit(episodes)
    transitions = Transitions(episodes, normalizer, torch.device("cpu"))
    batch = transitions.get(torch.arange(5))
    rows, next_rows = [0, 1, 2, 4, 5], [1, 2, 3, 5, 6]
    normalized = normalizer.observations(torch.tensor(episodes.observations))
    torch.testing.assert_close(batch.obs, normalized[rows])
    torch.testing.assert_close(batch.next_obs, normalized[next_rows])
    assert batch.continues.tolist() == [1, 1, 1, 1, 0]
    assert batch.is_last.tolist() == [0, 0, 1, 0, 1]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.actions[:, 0].tolist() == [-1.0, -0.5, 1.0, 0.0, 0.5]
    # spent before: 0, 1, 1 + 4 / 2 | 0, 2
    assert batch.spent.tolist() == [0.0, 1.0, 3.0, 0.0, 2.0]
    assert len(transitions) == 5 and transitions.episode.tolist() == [0, 0, 0, 1, 1]
    assert transitions.steps_left(torch.arange(5)).tolist() == [3, 2, 1, 2, 1]
    for name, values in vars(transitions.all).items():
        assert torch.equal(values, getattr(batch, name))


def test_batches_are_drawn_by_the_generator_alone():
    episodes = two_episodes()
    transitions = Transitions(episodes, UnitNormalizer.fit(episodes))
    first, again = (transitions.sample(9, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.obs.shape == (9, 2) and torch.equal(first.obs, again.obs)


def test_normalizing_goes_back_and_forth():
    normalizer = UnitNormalizer.fit(two_episodes())
    actions = torch.tensor([[-1.0], [0.5], [3.0]])
    torch.testing.assert_close(normalizer.to_environment(normalizer.actions(actions)), actions)
    observations = torch.tensor(two_episodes().observations)
    normalized = normalizer.observations(observations)
    torch.testing.assert_close(normalized.mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalized.std(dim=0, correction=0), torch.ones(2))


def test_n_step_targets_are_sums_inside_one_episode(tiny_episodes):
    transitions = Transitions(tiny_episodes, Normalizer.fit(tiny_episodes))
    discounts = {"discount": 0.9, "cost_discount": 0.8}
    starts = torch.tensor([0, 150, 196, 199, 200, len(transitions) - 1])
    for wanted in (1, 3, 8):
        target = transitions.n_step(starts, torch.full((6,), wanted), 8, **discounts)
        torch.testing.assert_close(target.obs, transitions.all.obs[starts])
        torch.testing.assert_close(target.actions, transitions.all.actions[starts])
        for i, start in enumerate(starts.tolist()):
            length = min(wanted, 200 - start % 200)
            assert target.num_steps[i] == length
            later = np.arange(length)
            rewards, costs = (
                values[start : start + length]
                for values in (tiny_episodes.rewards, tiny_episodes.costs)
            )
            assert float(target.returns[i]) == pytest.approx(rewards @ 0.9**later, rel=1e-5)
            assert float(target.costs[i]) == pytest.approx(costs @ 0.8**later, abs=1e-6)
            torch.testing.assert_close(
                target.next_obs[i], transitions.all.next_obs[start + length - 1]
            )
    three = (starts, torch.full((6,), 3), 4)
    assert (transitions.n_step(*three, **discounts).survival == 1).all()
    transitions.all.continues[199] = 0.0
    assert transitions.n_step(*three, **discounts).survival.tolist() == [1, 1, 1, 0, 1, 1]


def test_a_budget_that_is_spent_evenly_is_what_the_critic_sees():
    steps, budget, discount = 200, 60.0, 0.99
    discounted = sum(discount**t * budget / steps for t in range(steps))
    z, k = torch.tensor([budget, torch.inf]), torch.tensor([200.0, 5.0])
    converted = critic_budget(z, k, 1.0, discount)
    assert abs(converted[0].item() - discounted) < 1e-4
    assert converted[1] == torch.inf
    torch.testing.assert_close(critic_budget(z, k, 0.9, 0.9), z)
