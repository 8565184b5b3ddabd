import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from safe_diffusion_agent.methods.trebi.planner import budget_gradient, select_candidate


def reward_value(x):
    return torch.sin(x).sum(dim=(1, 2)) + x[:, 0, 0] ** 2


def cost_value(x):
    return torch.exp(0.3 * x).mean(dim=(1, 2)) * 5.0


def log_h(x, budget, *, scale, penalty):
    """Eq. 14, row by row, in plain Python numbers."""
    returns, costs = reward_value(x), cost_value(x)
    return [
        scale * (float(r) - penalty * (float(c) > b) * (float(c) - b))
        for r, c, b in zip(returns, costs, budget, strict=True)
    ]


@pytest.mark.parametrize("penalty", [0.0, 20.0, 1000.0])
def test_is_the_finite_difference_gradient_of_equation_14(penalty):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    budget = [0.0, 4.0, 100.0, math.inf]  # over, over or not, within, unconstrained
    gradient = budget_gradient(
        x,
        torch.tensor(budget, dtype=torch.float64),
        reward_value,
        cost_value,
        guidance_scale=0.1,
        penalty=penalty,
    )
    finite = [b if math.isfinite(b) else 1e6 for b in budget]
    eps = 1e-6
    for h, d in np.ndindex(3, 2):
        shift = torch.zeros_like(x)
        shift[:, h, d] = eps
        above = log_h(x + shift, finite, scale=0.1, penalty=penalty)
        below = log_h(x - shift, finite, scale=0.1, penalty=penalty)
        expected = (np.array(above) - np.array(below)) / (2 * eps)
        np.testing.assert_allclose(gradient[:, h, d], expected, rtol=1e-5, atol=1e-7)


def test_ramp_multiplies_the_penalty_as_the_reference_code_does():
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    cost = cost_value(x)
    for budget, factor in (
        (cost / 1.5, math.exp(0.5)),  # (C - z) / z = 0.5
        (cost / 10.0, math.exp(1.0)),  # clipped at 1
        (-cost, 1.0),  # overspent: clipped at 0
    ):
        only_return = budget_gradient(
            x, budget, reward_value, cost_value, guidance_scale=1.0, penalty=0.0
        )
        plain = budget_gradient(
            x, budget, reward_value, cost_value, guidance_scale=1.0, penalty=7.0
        )
        ramped = budget_gradient(
            x, budget, reward_value, cost_value, guidance_scale=1.0, penalty=7.0, penalty_ramp=True
        )
        torch.testing.assert_close(ramped - only_return, factor * (plain - only_return))


def test_a_cost_of_nan_counts_as_over_budget():
    x = torch.randn(1, 2, 2)
    gradient = budget_gradient(
        x,
        torch.tensor([1.0]),
        lambda y: 0.0 * y.sum(dim=(1, 2)),
        lambda y: y.sum(dim=(1, 2)) * torch.nan,
        guidance_scale=1.0,
        penalty=1.0,
    )
    assert gradient.isnan().all()  # the penalty was applied: it is not silently ignored


values = st.lists(
    st.tuples(
        st.floats(-1e3, 1e3, width=32) | st.just(math.nan),
        st.floats(-10, 100, width=32) | st.sampled_from([math.nan, math.inf]),
    ),
    min_size=1,
    max_size=6,
)


@example([(math.nan, 0.0), (0.0, math.inf)], 0.0)
@given(values, st.floats(-50, 150, width=32) | st.just(math.inf))
def test_selection_is_that_of_a_plain_search(candidates, budget):
    returns = torch.tensor([[r for r, _ in candidates]])
    costs = torch.tensor([[c for _, c in candidates]])
    index, feasible = select_candidate(returns, costs, torch.tensor([budget]))
    sound = [(r, c) for r, c in candidates if not (math.isnan(r) or math.isnan(c))]
    within = [r for r, c in sound if c <= budget]
    chosen_return, chosen_cost = candidates[int(index)]
    assert bool(feasible) == bool(within)
    if within:
        assert chosen_return == max(within) and chosen_cost <= budget
    elif sound:
        assert chosen_cost == min(c for _, c in sound)


def test_selection_is_for_each_state_on_its_own():
    returns = torch.tensor([[1.0, 5.0], [1.0, 5.0], [1.0, 5.0]])
    costs = torch.tensor([[2.0, 9.0], [2.0, 9.0], [2.0, 9.0]])
    index, feasible = select_candidate(returns, costs, torch.tensor([10.0, 3.0, 1.0]))
    assert index.tolist() == [1, 0, 0]
    assert feasible.tolist() == [True, True, False]


@pytest.mark.parametrize(("budget", "num_passes"), [(math.inf, 0), (-1.0, 1)])
def test_cost_has_no_backward_pass_where_nobody_is_over_budget(budget, num_passes):
    passes = []

    def recorded_cost(x):
        cost = cost_value(x)
        cost.register_hook(passes.append)
        return cost

    x, budgets = torch.randn(4, 3, 2), torch.full((4,), budget)
    gradient = budget_gradient(
        x, budgets, reward_value, recorded_cost, guidance_scale=0.1, penalty=5.0
    )
    expected = budget_gradient(
        x, budgets, reward_value, cost_value, guidance_scale=0.1, penalty=5.0
    )
    torch.testing.assert_close(gradient, expected)
    assert len(passes) == num_passes
