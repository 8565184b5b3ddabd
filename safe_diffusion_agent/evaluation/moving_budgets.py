"""Budgets that move during an episode: a protocol that any policy can be evaluated under.

A schedule says how much is granted before each step: an array `(T, n)` for n episodes, in cost
units of that step, negative where the budget is cut. It is fixed before the episode and does not
react to what is spent; the agent is told nothing of what is to come. With b at the start,

    z_0 = b + g_0,    z_{t+1} = (z_t - c_t) / gamma_c + g_{t+1},

and the episode keeps its budget if z does not end below zero, that is, if its cost is at most

    b + sum over t of gamma_c^t g_t.

This is the budget from which a plan that knew the schedule would have started, so that the return
that is lost by not knowing it (the regret) can be measured: against the same agent that is given it
from the start, or where it is known, against the optimum for it. A cut may come when more has been
spent than it leaves; such episodes cannot be kept by any agent that had not foreseen it, and are
counted apart (`lost_to_cuts`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.rollout import FloatArray, Policy


def one_change(num_steps: int, at: npt.ArrayLike, amount: npt.ArrayLike) -> FloatArray:
    """Returns a raise (positive) or a cut (negative) of each episode's budget, once, `(T, n)`.

    Args:
        num_steps: T.
        at: `(n,)`, the steps before which the change comes, in [0, T).
        amount: `(n,)`, or one number; in cost units.
    """
    steps = np.asarray(at, np.int64)
    grants = np.zeros((num_steps, len(steps)))
    grants[steps, np.arange(len(steps))] = amount
    return grants


def top_ups(num_steps: int, every: int, amount: npt.ArrayLike) -> FloatArray:
    """Returns the same amount at regular times, `(T, n)`; the first after `every` steps.

    Args:
        num_steps: T.
        every: Steps between two of them.
        amount: `(n,)`, in cost units.
    """
    amounts = np.asarray(amount, np.float64)
    grants = np.zeros((num_steps, len(amounts)))
    grants[every::every] = amounts
    return grants


def random_walk(
    num_steps: int, every: int, scale: npt.ArrayLike, rng: np.random.Generator
) -> FloatArray:
    """Returns normally distributed changes at regular times, independent of each other, `(T, n)`.

    Args:
        num_steps: T.
        every: Steps between two of them.
        scale: `(n,)`, their standard deviation, in cost units.
        rng: Draws them.
    """
    scales = np.asarray(scale, np.float64)
    grants = np.zeros((num_steps, len(scales)))
    changes = grants[every::every]
    changes[:] = rng.normal(size=changes.shape) * scales
    return grants


def total_budget(start: npt.ArrayLike, grants: FloatArray, cost_discount: float) -> FloatArray:
    """Returns what an episode may cost in all, as seen from its start, `(n,)`; may be negative.

    Args:
        start: b, `(n,)`.
        grants: `(T, n)`.
        cost_discount: gamma_c.
    """
    total: FloatArray = np.asarray(start, np.float64) + discounted_sum(grants, cost_discount)
    return total


class Scheduled:
    """Tells a policy of budgets that move; a policy itself, for `evaluation.rollout`.

    The rollout's own budgets should be those at the start. The grants are added to what it says is
    left of them.

    Args:
        policy: Is told the budgets as they are now.
        grants: `(T, n)`.
        cost_discount: gamma_c of the rollout.
    """

    def __init__(self, policy: Policy, grants: FloatArray, cost_discount: float = 1.0):
        self._policy = policy
        self._grants = grants
        self._cost_discount = cost_discount
        self._granted = np.zeros(grants.shape[1])  # worth now, of all grants so far
        self._step = 0

    def __call__(
        self, obs: Any, remaining_budget: FloatArray, remaining_steps: npt.NDArray[np.int64], /
    ) -> npt.NDArray[Any]:
        """Returns actions `(n, A)` of this step."""
        self._granted = self._granted / self._cost_discount + self._grants[self._step]
        self._step += 1
        return self._policy(obs, remaining_budget + self._granted, remaining_steps)


def lost_to_cuts(
    start: npt.ArrayLike, grants: FloatArray, costs: FloatArray, cost_discount: float
) -> npt.NDArray[np.bool_]:
    """Returns whether more than the total budget had been spent before the last cut, `(n,)`.

    Args:
        start: b, `(n,)`.
        grants: `(T, n)`.
        costs: Of the steps, `(L, n)` with L <= T, as in `Rollout`.
        cost_discount: gamma_c.
    """
    discounts = cost_discount ** np.arange(len(costs))[:, None]
    spent_before = np.cumsum(discounts * costs, axis=0) - discounts * costs
    is_cut = grants[: len(costs)] < 0.0
    before_last_cut = np.where(is_cut, spent_before, -np.inf).max(axis=0)
    lost: npt.NDArray[np.bool_] = before_last_cut > total_budget(start, grants, cost_discount)
    return lost
