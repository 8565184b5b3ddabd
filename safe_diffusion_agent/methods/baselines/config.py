"""Settings that several baselines share. What differs is in each method's own module.

The defaults are the paper's (Lin et al. 2023, App. D), and, where it is silent, those of the
method's own paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.settings import check, check_positive, check_shares


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the networks of a baseline are trained, with Adam.

    Attributes:
        num_steps: Optimiser steps; every network takes one each.
        batch_size: Transitions per step.
        actor_learning_rate: Of what acts: policies and perturbation models.
        critic_learning_rate: Of critics and value functions.
        generator_learning_rate: Of the generative model of the data's actions.
        target_rate: Rate at which target networks follow.
        width: Width of the two hidden layers of each network.
        discount: Discount of rewards. It is below one because the critics do not see the time.
        cost_discount: Discount of costs in the critics. None: the task's gamma_c, or, where that is
            one, `discount`; see `budgets.critic_budget`.
    """

    num_steps: int = 1_000_000
    batch_size: int = 256
    actor_learning_rate: float = 1e-5
    critic_learning_rate: float = 1e-3
    generator_learning_rate: float = 1e-3
    target_rate: float = 0.005
    width: int = 256
    discount: float = 0.99
    cost_discount: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, ("num_steps", "batch_size", "width"))
        rates = ("actor_learning_rate", "critic_learning_rate", "generator_learning_rate")
        check_positive(self, rates)
        check_shares(self, ("target_rate",))
        for name in ("discount", "cost_discount"):
            value = getattr(self, name)
            check(value is None or 0.0 < value < 1.0, f"{name} should be in (0, 1)", value)


@dataclass(frozen=True, kw_only=True)
class BcqConfig:
    """Settings of BCQ (Fujimoto et al. 2019).

    Attributes:
        perturbation: Phi, largest change of a generated action, as a share of half the action
            range. The paper chooses among 0.15, 0.10, 0.05 and 0.015 for each task.
        num_target_actions: Generated actions per next state, in the targets.
        num_actions: Generated actions per state, when acting.
        min_weight: Weight of the smaller of the two critics in the targets; the larger one has the
            rest (lambda in Eq. 13 there).
        kl_weight: Weight of the divergence in the generative model's loss.
    """

    perturbation: float = 0.05
    num_target_actions: int = 10
    num_actions: int = 100
    min_weight: float = 0.75
    kl_weight: float = 0.5

    def __post_init__(self) -> None:
        check_positive(self, ("num_target_actions", "num_actions"))
        check_shares(self, ("perturbation", "min_weight"))
        check(self.kl_weight >= 0, "kl_weight should be >= 0", self.kl_weight)


# Ours, for two CPU cores: far fewer steps than the paper's, smaller networks, and rates for what
# acts and for the targets that let both get somewhere in so few steps (values of a discount of 0.99
# need some hundred moves of the targets).
QUICK_TRAINING = TrainingConfig(
    num_steps=5_000, batch_size=128, width=128, actor_learning_rate=3e-4, target_rate=0.05
)
QUICK_BCQ = BcqConfig(num_target_actions=5, num_actions=10)


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
