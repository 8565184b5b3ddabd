"""How much to hold back so that few episodes exceed their budget.

The margin for a risk r is the sum of two split-conformal quantiles (Vovk et al. 2005), each at r/2:

    of how much imagined episodes overspend, in which the agent plays in its own one-step models,
    each with one member of the ensemble as the world, and with budgets spread over the range;
    of how much held-out windows of the data cost beyond what the models predicted.

What is guaranteed: of the imagined episodes and one more like them, and of the windows and one more
of the same kind, at most a share r/2 exceed their quantile. For real episodes that holds as far as
the agent meets in them what the data and the models know, which only the real environment can tell.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.trebi.dynamics import DynamicsEnsemble

# Normalised observations `(N, O)`, remaining budgets and steps `(N,)` to normalised actions.
BudgetPolicy = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Calibration:
    """Scores that a margin is taken from.

    Attributes:
        overspend: `(n,)`, cost less budget of imagined episodes.
        underestimate: `(m,)`, cost less predicted cost of held-out windows.
    """

    overspend: Tensor
    underestimate: Tensor

    def margin(self, risk: float) -> float:
        """What to hold back, in cost units; >= 0.

        Raises:
            ValueError: There are too few scores for so small a risk.
        """
        scores = (self.overspend, self.underestimate)
        return sum(max(0.0, conformal_quantile(values, risk / 2)) for values in scores)


def conformal_quantile(scores: Tensor, risk: float) -> float:
    """The smallest score that a new one exceeds with probability at most `risk`.

    Args:
        scores: `(n,)`, exchangeable with the new one.
        risk: In (0, 1).

    Returns:
        The ceil((n + 1)(1 - risk))-th smallest score.

    Raises:
        ValueError: There are too few scores for so small a risk.
    """
    rank = math.ceil((len(scores) + 1) * (1.0 - risk))
    if rank > len(scores):
        raise ValueError(
            f"A risk of {risk:g} needs at least {math.ceil(1 / risk) - 1} scores; the agent has "
            f"{len(scores)}. Choose a larger risk, or None for no margin."
        )
    return float(scores.sort().values[rank - 1])


@torch.no_grad()
def imagined_overspend(
    policy: BudgetPolicy,
    dynamics: DynamicsEnsemble,
    obs: Tensor,
    budgets: Tensor,
    num_steps: int,
    cost_discount: float,
    progress: Callable[..., None] | None = None,
) -> Tensor:
    """Cost less budget of imagined episodes, `(N,)`; negative where something is left.

    Args:
        policy: Acts on what it is told is left of the budget.
        dynamics: The models; episode i runs in member i modulo M.
        obs: First observations, `(N, O)`, normalised.
        budgets: `(N,)`, in cost units.
        num_steps: Length of the episodes.
        cost_discount: gamma_c.
        progress: Called as `progress(done, total)`, in steps.
    """
    members = torch.arange(len(obs), device=obs.device) % dynamics.num_members
    remaining, spent = budgets.clone(), torch.zeros_like(budgets)
    alive = torch.ones_like(budgets)
    for t in range(num_steps):
        left = torch.full_like(budgets, num_steps - t)
        transition = dynamics.step(obs, policy(obs, remaining, left), members)
        spent = spent + cost_discount**t * alive * transition.cost
        remaining = (remaining - transition.cost) / cost_discount
        alive = alive * (transition.survival > 0.5)
        obs = transition.observation
        if progress is not None:
            progress(t + 1, num_steps)
    return spent - budgets


def spread_budgets(num: int, max_budget: float) -> Tensor:
    """`num` budgets evenly over (0, max_budget]."""
    return torch.tensor(np.arange(1, num + 1) / num * max_budget, dtype=torch.float32)
