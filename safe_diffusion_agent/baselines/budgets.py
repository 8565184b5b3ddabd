"""Budgets in the units of a discounted critic.

A critic's costs are discounted by gamma < 1 over an endless future; a task's budget is a sum over
the k steps that are left, discounted by gamma_c, which is 1 for most tasks. If costs accrue evenly,
the one is the other times

    (1 - gamma^k) / (1 - gamma)  :  (1 - gamma_c^k) / (1 - gamma_c)    (k, for gamma_c = 1),

the conversion in the public implementations of BCQ-Lagrangian, CPQ (OSRL) and CAPS. It is one where
the discounts are the same.
"""

import torch
from torch import Tensor

from safe_diffusion_agent.baselines.config import TrainingConfig
from safe_diffusion_agent.episodes import Task


def critic_cost_discount(task: Task, training: TrainingConfig) -> float:
    """Discount of costs in the critics (see `TrainingConfig.cost_discount`).

    Raises:
        ValueError: Budgets cannot be converted, as the episodes have no end.
    """
    if task.cost_discount == 1.0 and task.max_episode_steps is None:
        raise ValueError(
            "Budgets of a task with gamma_c = 1 need a time limit: the dataset should have "
            "max_episode_steps, or a cost_discount below one."
        )
    if training.cost_discount is not None:
        return training.cost_discount
    return training.discount if task.cost_discount == 1.0 else task.cost_discount


def critic_budget(
    budget: Tensor, steps: Tensor, task_discount: float, critic_discount: float
) -> Tensor:
    """What a budget is in the units of a critic.

    Args:
        budget: z, `(N,)`, in the task's cost units as of now; may be negative or infinite.
        steps: k, `(N,)`, steps that are left.
        task_discount: gamma_c.
        critic_discount: gamma of the critic, below one.

    Returns:
        `(N,)`.
    """
    return budget * _weight(steps, critic_discount) / _weight(steps, task_discount)


def budget_of_ratio(ratio: float, task: Task, critic_discount: float) -> float:
    """The budget of a whole episode, given as a share of the maximum, in the units of a critic."""
    steps = torch.tensor(task.max_episode_steps or torch.inf)
    budget = torch.tensor(ratio * task.max_budget)
    return float(critic_budget(budget, steps, task.cost_discount, critic_discount))


def _weight(steps: Tensor, discount: float) -> Tensor:
    """Sum of discount^i over i < steps."""
    return steps if discount == 1.0 else (1.0 - discount**steps) / (1.0 - discount)
