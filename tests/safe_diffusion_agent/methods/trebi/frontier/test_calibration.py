import numpy as np
import pytest
import torch

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.frontier.calibration import (
    cost_underestimates,
    held_out_rows,
    imagined_overspend,
    spread_budgets,
)


def test_overspend_is_counted_in_what_the_budget_counts():
    class Toll(DynamicsEnsemble):
        def step(self, obs, actions, members=None):
            ones = torch.ones(len(obs))
            return Transition(obs, ones, 2.0 * ones, ones)

    told = []

    def policy(obs, remaining, left):
        told.append((remaining.clone(), left.clone()))
        return torch.zeros(len(obs), 1)

    budgets = spread_budgets(4, 20.0)
    assert budgets.tolist() == [5, 10, 15, 20]
    over = imagined_overspend(policy, Toll(1, 1, 4, 2), torch.zeros(4, 1), budgets, 3, 0.5)
    assert over.tolist() == pytest.approx([2 * 1.75 - budget for budget in budgets.tolist()])
    assert told[1][0].tolist() == pytest.approx([2 * (b - 2) for b in budgets.tolist()])
    assert [float(left[0]) for _, left in told] == [3, 2, 1]


def test_the_critics_word_is_held_against_it(frontier_agent, tiny_episodes, monkeypatch):
    """A critic that says 7 at the start, of behavior that goes on to spend 2 more in the models."""
    judge = frontier_agent.planner.judge
    transitions = Transitions(tiny_episodes, frontier_agent.normalizer)
    rows = torch.tensor([0, 100, 350])
    num_steps = int(judge.dynamics.trusted_steps)

    def forward(obs, steps_left, multipliers):
        started = torch.isin(steps_left, transitions.steps_left(rows))
        costs = torch.where(started, 7.0, 0.0)
        return torch.zeros_like(costs), costs

    def step(obs, actions, members=None):
        ones = torch.ones(len(obs))
        return Transition(obs, ones, 9.0 / num_steps * ones, ones)

    monkeypatch.setattr(judge.critic, "forward", forward)
    monkeypatch.setattr(judge.dynamics, "step", step)
    scores = cost_underestimates(judge, transitions, rows)
    # 2 too much with 200, 100 and 50 of 200 steps to go: as if all of them were.
    assert scores.tolist() == pytest.approx([2.0, 4.0, 8.0])


def test_held_out_rows_are_those_of_every_few_episodes(frontier_agent, tiny_episodes):
    transitions = Transitions(tiny_episodes, frontier_agent.normalizer)
    held_out = np.flatnonzero(held_out_rows(transitions, 0.25))
    assert held_out.tolist() == [200 * e + t for e in (3, 7, 11) for t in range(200)]
