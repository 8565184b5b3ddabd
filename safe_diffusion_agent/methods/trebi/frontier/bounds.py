"""The most that a remaining budget buys, given what can follow a plan for each price of cost.

For a plan with return R and cost C of its own, after which the behavior that is best for return -
m cost would return R_m and cost C_m, the most that a remaining budget z buys is bounded by

    min over m >= 0 of   R + R_m + m (z - C - C_m)                  (Lagrangian dual),

and the plan can be completed within the budget if C + min over m of C_m <= z.
"""

import torch
from torch import Tensor

NUM_CAREFUL = 3  # largest multipliers, the least of whose costs is taken as reachable


def most_return(
    returns: Tensor, costs: Tensor, budget: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the dual bound, and the least reachable cost.

    Args:
        returns: `(N, G)`, return of the plan and what follows it, for each multiplier.
        costs: `(N, G)`, the same of the cost.
        budget: z, `(N,)`; `inf` for no constraint.
        multipliers: `(G,)`, ascending from 0, in return per cost.

    Returns:
        The most return that the budget buys, `(N,)`, and the least cost, `(N,)`.
    """
    slack = multipliers * (budget[:, None] - costs)
    bounds = returns + torch.where(multipliers > 0, slack, 0.0)  # 0 * inf would be NaN
    return bounds.min(dim=1).values, costs[:, -NUM_CAREFUL:].min(dim=1).values


def best_single_return(
    returns: Tensor, costs: Tensor, budget: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns, without the dual, the best return among the multipliers whose cost fits.

    It is what is left where no mixture of two behaviors is counted on; for comparison.
    """
    least_cost = costs[:, -NUM_CAREFUL:].min(dim=1).values
    fits = costs <= budget[:, None]
    best = returns.masked_fill(~fits, -torch.inf).max(dim=1).values
    return torch.where(fits.any(dim=1), best, returns[:, -1]), least_cost


BOUNDS = {"dual": most_return, "single": best_single_return}
