"""Settings that several baselines share, and budgets in the units of their critics.

The defaults are the paper's (Lin et al. 2023, App. D), and, where it is silent, those of the
method's own paper.

A critic's costs are discounted by gamma < 1 over an endless future; a task's budget is a sum over
the k steps that are left, discounted by gamma_c, which is 1 for most tasks. If costs accrue evenly,
the one is the other times

    (1 - gamma^k) / (1 - gamma)  :  (1 - gamma_c^k) / (1 - gamma_c)    (k, for gamma_c = 1),

the conversion in the public implementations of BCQ-Lagrangian, CPQ (OSRL) and CAPS. It is one where
the discounts are the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Task, discounted_steps
from safe_diffusion_agent.settings import check, check_positive, check_shares


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the networks of a baseline are trained, with Adam.

    Attributes:
        num_steps: Optimizer steps; every network takes one each.
        batch_size: Transitions per step.
        actor_learning_rate: Of what acts: policies and perturbation models.
        critic_learning_rate: Of critics and value functions.
        generator_learning_rate: Of the generative model of the data's actions.
        target_rate: Rate at which target networks follow.
        width: Width of the two hidden layers of each network.
        discount: Discount of rewards. It is below one because the critics do not see the time.
        cost_discount: Discount of costs in the critics. None: the task's gamma_c, or, where that is
            one, `discount`.
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


RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the paper's evaluation


def check_ratios(ratios: tuple[float, ...]) -> None:
    """Raises a ValueError if these are no budgets to train for; infinity means no constraint."""
    valid = bool(ratios) and all(ratio >= 0.0 for ratio in ratios)
    check(valid, "ratios should be one number or more, each >= 0", ratios)


# Ours, for two CPU cores: far fewer steps than the paper's, smaller networks, and rates for what
# acts and for the targets that let both get somewhere in so few steps (values of a discount of 0.99
# need some hundred moves of the targets).
QUICK_TRAINING = TrainingConfig(
    num_steps=5_000, batch_size=128, width=128, actor_learning_rate=3e-4, target_rate=0.05
)
QUICK_BCQ = BcqConfig(num_target_actions=5, num_actions=10)


def critic_cost_discount(task: Task, training: TrainingConfig) -> float:
    """Returns the discount of costs in the critics.

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
    """Returns what a budget is in the units of a critic, `(N,)`.

    Args:
        budget: z, `(N,)`, in the task's cost units as of now; may be negative or infinite.
        steps: k, `(N,)`, steps that are left.
        task_discount: gamma_c.
        critic_discount: gamma of the critic, below one.
    """
    weight, task_weight = (discounted_steps(steps, g) for g in (critic_discount, task_discount))
    result: Tensor = budget * weight / task_weight
    return result


def remaining_critic_budget(
    budget: Tensor, steps: Tensor, task: Task, training: TrainingConfig
) -> Tensor:
    """Returns what remains of a task's budget in the units of its critics, `(N,)`.

    Args:
        budget: z, `(N,)`, in cost units; taken for 0 if overspent where no cost is negative.
        steps: k, `(N,)`, steps that are left.
        task: The task.
        training: How the critics were trained.
    """
    z = budget if task.costs_may_be_negative else budget.clamp_min(0.0)
    return critic_budget(z, steps, task.cost_discount, critic_cost_discount(task, training))


def budget_of_ratio(ratio: float, task: Task, critic_discount: float) -> float:
    """Returns a share of the maximum budget for a whole episode, in the units of a critic."""
    steps = torch.tensor(task.max_episode_steps or torch.inf)
    budget = torch.tensor(ratio * task.max_budget)
    return float(critic_budget(budget, steps, task.cost_discount, critic_discount))
