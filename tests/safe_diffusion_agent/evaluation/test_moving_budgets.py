import numpy as np
import pytest

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.moving_budgets import (
    Scheduled,
    lost_to_cuts,
    one_change,
    random_walk,
    top_ups,
    total_budget,
)
from safe_diffusion_agent.evaluation.rollout import rollout
from safe_envs import next_remaining_budget


def test_schedules_written_out():
    changes = one_change(4, at=[0, 3], amount=[5.0, -2.0])
    assert changes.tolist() == [[5, 0], [0, 0], [0, 0], [0, -2]]
    assert top_ups(7, 3, [2.0])[:, 0].tolist() == [0, 0, 0, 2, 0, 0, 2]
    walk = random_walk(10_001, 2, [1.0, 3.0], np.random.default_rng(0))
    assert (walk[1::2] == 0).all() and (walk[0] == 0).all()
    assert walk[2::2].std(axis=0) == pytest.approx([1.0, 3.0], rel=0.05)
    again = random_walk(10_001, 2, [1.0, 3.0], np.random.default_rng(0))
    np.testing.assert_array_equal(walk, again)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_budgets_are_told_as_the_recursion_says(discount):
    """And z ends below zero exactly where the cost exceeds the total budget."""
    rng = np.random.default_rng(0)
    grants, start = rng.normal(size=(200, 3)), np.array([1.0, 5.0, 9.0])
    told, actions = [], rng.uniform(-1, 1, (200, 3, 1))

    def policy(obs, remaining, left):
        told.append(remaining.copy())
        return actions[len(told) - 1]

    scheduled = Scheduled(policy, grants, discount)
    run = rollout(
        scheduled, "safe/Pendulum-v0", start, [1, 2, 3], cost_discount=discount, mode="train"
    )
    left = start + grants[0]
    for t in range(200):
        np.testing.assert_allclose(told[t], left, rtol=1e-6, atol=1e-6)
        left = next_remaining_budget(left, run.costs[t], discount)
        if t < 199:
            left = left + grants[t + 1]
    over = discounted_sum(run.costs, discount) > total_budget(start, grants, discount)
    np.testing.assert_array_equal(left < 0, over)


def test_what_was_spent_before_a_cut_cannot_be_kept():
    costs = np.ones((4, 3))
    grants = one_change(4, at=[2, 2, 2], amount=[-8.5, -7.5, 1.0])
    assert total_budget([10.0] * 3, grants, 1.0).tolist() == [1.5, 2.5, 11.0]
    assert lost_to_cuts([10.0] * 3, grants, costs, 1.0).tolist() == [True, False, False]
    assert lost_to_cuts([10.0] * 3, grants, costs, 0.5).tolist() == [False, False, False]
