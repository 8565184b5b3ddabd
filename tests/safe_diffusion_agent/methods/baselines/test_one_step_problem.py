"""The BCQ family on a problem of one step that Lagrange's multiplier solves by hand.

Spending x in [0, 4] costs x and pays 4 x - x^2 / 2. The most reward within a budget b < 4 is at
x = b, where the price is 4 - b. BCQ cannot spend just anything: its latents lie within 0.5 standard
deviations, so that of uniform data it reaches the middle 38 %, that is 1.2 to 2.8. (CPQ is not
here: through its indicator no gradient tells the policy to stay below the budget.)
"""

from dataclasses import replace

import numpy as np
import pytest

from safe_diffusion_agent.methods.table import METHODS

BCQ = {"num_actions": 50, "kl_weight": 0.01}  # a generator that covers all of the data's actions
SETTINGS = {
    "bcq-saute": {"penalty": 20.0},
    "bcorle": {"max_price": 4.0},
    "bcq-lagrangian": {"ratios": (0.375, 0.5, 0.625), "price_learning_rate": 0.05},
}


@pytest.fixture
def problem(tiny_episodes):
    spent = np.random.default_rng(0).uniform(0.0, 4.0, 2_000)
    return replace(
        tiny_episodes, observations=np.zeros((4_000, 3), np.float32),
        actions=(spent[:, None] - 2.0).astype(np.float32), rewards=4.0 * spent - spent**2 / 2,
        costs=spent, lengths=np.ones(2_000, np.int64), terminated=np.ones(2_000, bool),
        max_episode_steps=1, max_budget=4.0,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", SETTINGS)
def test_spends_the_budget(problem, method):
    config = METHODS[method].config(
        "quick", num_steps=1_000, width=64, actor_learning_rate=1e-3, **BCQ, **SETTINGS[method]
    )
    agent, _ = METHODS[method].fit(problem, config, device="cpu")
    budgets = (1.5, 2.0, 2.5)
    spent = [
        2.0 + agent.for_budget(budget).act(np.zeros((50, 3)), budget, 1)[:, 0].mean()
        for budget in budgets
    ]
    assert spent == sorted(spent)
    for amount, budget in zip(spent, budgets, strict=True):
        # A short training. BCQ-Saute stays below: its critic smooths the cliff at the budget.
        assert budget - 0.75 < amount < budget + 0.35


@pytest.mark.slow
def test_without_a_constraint_it_spends_all_that_it_can_reach(problem):
    settings = {"num_steps": 1_000, "width": 64, "actor_learning_rate": 1e-3, **BCQ}
    config = METHODS["bcq"].config("quick", **settings)
    agent, _ = METHODS["bcq"].fit(problem, config, device="cpu")
    spent = 2.0 + agent.act(np.zeros((50, 3)), 0.0, 1)[:, 0].mean()
    assert 2.6 < spent < 3.2
