"""How the budget steers the plan: the gradient of Eq. 16, and the choice among candidates.

Both are pure functions. With return R(tau), cost C(tau), remaining budget z and n > 0, the target

    log h(tau) = alpha (R(tau) - n 1[C(tau) > z] (C(tau) - z))        (Lin et al. 2023, Eq. 13-14)

has the gradient alpha (grad R - n 1[C > z] grad C).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[Tensor], Tensor]


def budget_gradient(
    trajectories: Tensor,
    remaining_budget: Tensor,
    reward_value: Value,
    cost_value: Value,
    *,
    guidance_scale: float,
    penalty: float,
    penalty_ramp: bool = False,
) -> Tensor:
    """Gradient that raises the return and, over budget, lowers the cost (Eq. 16; Alg. 1, 5-9).

    Args:
        trajectories: Noised candidates, `(N, H, D)`.
        remaining_budget: z of each candidate, `(N,)`, in cost units; `inf` for no constraint.
        reward_value: Maps trajectories to their return, `(N, H, D) -> (N,)`.
        cost_value: The same for the cost, in cost units. A NaN counts as over budget.
        guidance_scale: alpha, > 0.
        penalty: n, >= 0.
        penalty_ramp: Multiplies n by exp(min((C - z) / z, 1)), which the reference code does by
            default (its `guide_type 0`) and its published experiments do not.

    Returns:
        The gradient, `(N, H, D)`, before multiplication by the step's variance.
    """
    with torch.enable_grad():
        x = trajectories.detach().requires_grad_()
        predicted_return, predicted_cost = reward_value(x), cost_value(x)
        over_budget = ~(predicted_cost.detach() <= remaining_budget)
        weight = penalty * over_budget
        if penalty_ramp:
            excess = (predicted_cost.detach() - remaining_budget) / remaining_budget
            weight = weight * excess.nan_to_num().clamp(0.0, 1.0).exp()
        objective = (predicted_return - weight * predicted_cost).sum()
        (gradient,) = torch.autograd.grad(objective, x)
    return guidance_scale * gradient


def select_candidate(
    predicted_return: Tensor, predicted_cost: Tensor, remaining_budget: Tensor
) -> tuple[Tensor, Tensor]:
    """Chooses, for each state, the plan to execute (Lin et al. 2023, App. D).

    It is the candidate of the highest predicted return among those whose predicted cost is within
    the budget. If there is none (the paper does not say), it is the one of the lowest cost, as in
    the reference code. A candidate with a NaN is chosen last.

    Args:
        predicted_return: `(B, K)`.
        predicted_cost: `(B, K)`, in cost units.
        remaining_budget: `(B,)`, in cost units.

    Returns:
        The index of the chosen candidate, `(B,)`, and whether it is within the budget, `(B,)`.
    """
    broken = predicted_return.isnan() | predicted_cost.isnan()
    within_budget = (predicted_cost <= remaining_budget[:, None]) & ~broken
    feasible = within_budget.any(dim=1)
    best = predicted_return.masked_fill(~within_budget, -torch.inf).argmax(dim=1)
    cheapest = predicted_cost.masked_fill(broken, torch.inf).argmin(dim=1)
    return torch.where(feasible, best, cheapest), feasible
