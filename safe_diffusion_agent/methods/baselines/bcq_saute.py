"""BCQ-Saute: BCQ whose state holds the remaining budget (Saute, Sootla et al. 2022).

The budget is made a part of the state, z_{t+1} = (z_t - c_t) / gamma_c, and the constraint a part
of the reward: r where z_{t+1} >= 0, and minus a large penalty where it is not. What is left is BCQ
without cost. Every transition is trained with a random budget at the start of its episode.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import next_remaining_budget
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.bcq import QUICK, BcqAgent, BcqMethodConfig, BcqTraining
from safe_diffusion_agent.settings import check


@dataclass(frozen=True, kw_only=True)
class BcqSauteConfig(BcqMethodConfig):
    """Settings of BCQ-Saute.

    Attributes:
        penalty: Minus the reward of a step that ends over budget (Lin et al. 2023, App. D: 1000).
    """

    penalty: float = 1000.0

    def __post_init__(self) -> None:
        check(self.penalty >= 0, "penalty should be >= 0", self.penalty)


# A short training cannot fit values of -1000 / (1 - discount): hence the smaller penalty.
PRESETS = {
    "paper": BcqSauteConfig(preset="paper"),
    "quick": BcqSauteConfig(**QUICK, penalty=10.0),
}


def with_budget(obs: Tensor, budget: Tensor, max_budget: float) -> Tensor:
    """Returns states `(N, O + 1)`: observations and the share of the maximum budget, in [-1, 1]."""
    return torch.cat([obs, (budget / max_budget).clamp(-1.0, 1.0)[:, None]], dim=1)


def saute_reward(rewards: Tensor, next_budget: Tensor, penalty: float) -> Tensor:
    """Returns the reward where the budget is kept, minus the penalty where it is not; `(N,)`."""
    return torch.where(next_budget >= 0.0, rewards, -penalty)


class BcqSauteTraining(BcqTraining):
    """Trains with a random initial budget per transition."""

    def priced(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """Returns a batch whose states hold budgets and whose rewards penalties, and no price."""
        shares = torch.rand(len(batch.obs), generator=generator, device=generator.device)
        largest, discount = self.task.max_budget, self.cost_discount
        budget = (largest * shares - batch.spent) / discount**batch.positions
        next_budget = next_remaining_budget(budget, batch.costs, discount)
        priced = replace(
            batch,
            obs=with_budget(batch.obs, budget, largest),
            rewards=saute_reward(batch.rewards, next_budget, self.config.penalty),
            next_obs=with_budget(batch.next_obs, next_budget, largest),
        )
        return priced, torch.zeros_like(budget)


class BcqSauteAgent(BcqAgent):
    """BCQ that sees the remaining budget."""

    method: ClassVar[str] = "bcq-saute"
    config_class: ClassVar[Any] = BcqSauteConfig
    training_class: ClassVar[Any] = BcqSauteTraining
    extra_dims = 1

    def _states(self, networks: Any, obs: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        del networks
        return with_budget(obs, budget, self.task.max_budget), torch.zeros_like(budget)
