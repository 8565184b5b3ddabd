import numpy as np
import torch

from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.learning.transitions import Scaling, Transitions
from safe_diffusion_agent.methods.baselines.config import critic_budget


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
    scaling = Scaling.fit(episodes)
    batch = Transitions(episodes, scaling, torch.device("cpu")).get(torch.arange(5))
    rows, next_rows = [0, 1, 2, 4, 5], [1, 2, 3, 5, 6]
    scaled = scaling.observations(torch.tensor(episodes.observations))
    torch.testing.assert_close(batch.obs, scaled[rows])
    torch.testing.assert_close(batch.next_obs, scaled[next_rows])
    assert batch.continues.tolist() == [1, 1, 1, 1, 0]
    assert batch.positions.tolist() == [0, 1, 2, 0, 1]
    assert batch.actions[:, 0].tolist() == [-1.0, -0.5, 1.0, 0.0, 0.5]
    # spent before: 0, 1, 1 + 4 / 2 | 0, 2
    assert batch.spent.tolist() == [0.0, 1.0, 3.0, 0.0, 2.0]


def test_scaling_goes_back_and_forth():
    scaling = Scaling.fit(two_episodes())
    actions = torch.tensor([[-1.0], [0.5], [3.0]])
    torch.testing.assert_close(scaling.to_environment(scaling.actions(actions)), actions)
    observations = torch.tensor(two_episodes().observations)
    scaled = scaling.observations(observations)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(2))


def test_a_budget_that_is_spent_evenly_is_what_the_critic_sees():
    steps, budget, discount = 200, 60.0, 0.99
    discounted = sum(discount**t * budget / steps for t in range(steps))
    z, k = torch.tensor([budget, torch.inf]), torch.tensor([200.0, 5.0])
    converted = critic_budget(z, k, 1.0, discount)
    assert abs(converted[0].item() - discounted) < 1e-4
    assert converted[1] == torch.inf
    torch.testing.assert_close(critic_budget(z, k, 0.9, 0.9), z)
