"""Settings that several baselines share. What differs is in each method's own module.

The defaults are the paper's (Lin et al. 2023, App. D), and, where it is silent, those of the
method's own paper.
"""

from dataclasses import dataclass

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
