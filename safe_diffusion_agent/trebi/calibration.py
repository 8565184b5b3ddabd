"""How much to hold back so that few episodes exceed their budget, and how sure that is.

The scores of an agent with `judge="frontier"` are of two kinds:

    how much imagined episodes overspend, in which the agent plays in its own one-step models,
    each with one member of the ensemble as the world, and with budgets spread over the range;
    how much held-out windows of the data cost beyond what the models predicted.

Where the models are too poor for whole episodes (`min_branch_steps`), they are cut, and the critic
has its word for the rest, against what it said at the start. With `judge="values"` there is only
the second kind: the cost up to the end of the episode, beyond what the cost value predicted. The
margin for a risk r is the sum of their split-conformal quantiles
(Vovk et al. 2005), each at an equal share of r.

What is guaranteed: of the imagined episodes and one more like them, at most that share exceed their
quantile; of the windows, the same on average over data sets, if their episodes are exchangeable
(windows of one episode are not independent, so that few episodes make it coarse). It is a statement
on recorded behavior and imagined episodes, marginal over states. A chosen plan is not a random
window, and the agent's episodes are not the data's: for them the share has to be measured.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble

# Normalised observations `(N, O)`, remaining budgets and steps `(N,)` to normalised actions.
BudgetPolicy = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Calibration:
    """Scores that a margin is taken from.

    Attributes:
        underestimate: `(m,)`, cost less predicted cost of held-out windows.
        overspend: `(n,)`, cost less budget of imagined episodes, or of pieces of them (see
            `frontier_calibration.broken_promises`); None with `judge="values"`.
    """

    underestimate: Tensor
    overspend: Tensor | None = None

    def margin(self, risk: float) -> float:
        """What to hold back, in cost units; >= 0.

        Raises:
            ValueError: There are too few scores for so small a risk.
        """
        kinds = self._kinds
        return sum(max(0.0, conformal_quantile(scores, risk / len(kinds))) for scores in kinds)

    @property
    def least_risk(self) -> float:
        """The smallest risk that there are enough scores for."""
        kinds = self._kinds
        return max(len(kinds) / (len(scores) + 1) for scores in kinds)

    @property
    def _kinds(self) -> list[Tensor]:
        return [scores for scores in (self.underestimate, self.overspend) if scores is not None]

    def probability_within(self, slack: Tensor) -> Tensor:
        """Probability that a cost is underestimated by no more than `slack`, both `(N,)`.

        It is the share of the scores, and rises with the slack. That of a new score lies within
        1 / (2 (m + 1)) of it, so that it is never 0 or 1.
        """
        scores = self.underestimate.to(slack.device).sort().values
        num_within = torch.searchsorted(scores, slack, right=True)
        return (num_within + 0.5) / (len(scores) + 1)


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
