"""BCQ-Saute: BCQ whose state holds the remaining budget (Saute, Sootla et al. 2022).

The budget is made a part of the state, z_{t+1} = (z_t - c_t) / gamma_c, and the constraint a part
of the reward: r where z_{t+1} >= 0, and minus a large penalty where it is not. What is left is BCQ
without cost. Every transition is trained with a random budget at the start of its episode.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.bcq import (
    BcqNetworks,
    BcqTraining,
    PricedBatch,
    priced_losses,
)
from safe_diffusion_agent.methods.baselines.config import (
    QUICK_BCQ,
    QUICK_TRAINING,
    BcqConfig,
    TrainingConfig,
)
from safe_diffusion_agent.methods.baselines.fitting import FitOptions, History, fit_networks
from safe_diffusion_agent.settings import check


@dataclass(frozen=True, kw_only=True)
class BcqSauteConfig:
    """Settings of BCQ-Saute.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        bcq: Settings of BCQ.
        penalty: Minus the reward of a step that ends over budget (Lin et al. 2023, App. D: 1000).
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bcq: BcqConfig = field(default_factory=BcqConfig)
    penalty: float = 1000.0

    def __post_init__(self) -> None:
        check(self.penalty >= 0, "penalty should be >= 0", self.penalty)


# A short training cannot fit values of -1000 / (1 - discount): hence the smaller penalty.
PRESETS = {
    "paper": BcqSauteConfig(preset="paper"),
    "quick": BcqSauteConfig(preset="quick", training=QUICK_TRAINING, bcq=QUICK_BCQ, penalty=10.0),
}


def with_budget(obs: Tensor, budget: Tensor, max_budget: float) -> Tensor:
    """States `(N, O + 1)`: observations and the budget, as a share of the maximum in [-1, 1]."""
    return torch.cat([obs, (budget / max_budget).clamp(-1.0, 1.0)[:, None]], dim=1)


def saute_reward(rewards: Tensor, next_budget: Tensor, penalty: float) -> Tensor:
    """The reward where the budget is kept, minus the penalty where it is not; `(N,)`."""
    return torch.where(next_budget >= 0.0, rewards, -penalty)


class BcqSauteAgent(BaselineAgent):
    """BCQ that sees the remaining budget."""

    method: ClassVar[str] = "bcq-saute"
    config_class: ClassVar[Any] = BcqSauteConfig
    changeable: ClassVar[tuple[str, ...]] = ("num_actions",)
    config: BcqSauteConfig

    @classmethod
    def build(cls, config: BcqSauteConfig, task: Task) -> nn.Module:
        """See `BaselineAgent.build`."""
        dims = (task.obs_dim + 1, task.act_dim)
        return BcqNetworks(config.training, config.bcq, *dims, has_cost=False)

    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del steps
        states = with_budget(obs, budget, self.task.max_budget)
        actions: Tensor = self.networks.best_actions(
            states, torch.zeros_like(budget), self.config.bcq.num_actions, generator
        )
        return actions


class BcqSauteTraining(BcqTraining):
    """Trains with a random initial budget per transition.

    Args:
        networks: What is trained.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: BcqNetworks, config: BcqSauteConfig, task: Task):
        super().__init__(networks, config.training, config.bcq, task.cost_discount)
        self.max_budget = task.max_budget
        self.penalty = config.penalty

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Training.losses`."""
        shares = torch.rand(len(batch.obs), generator=generator, device=generator.device)
        initial = self.max_budget * shares
        budget = (initial - batch.spent) / self.cost_discount**batch.positions
        next_budget = (budget - batch.costs) / self.cost_discount
        priced = PricedBatch(
            with_budget(batch.obs, budget, self.max_budget),
            batch.actions,
            saute_reward(batch.rewards, next_budget, self.penalty),
            batch.costs,
            with_budget(batch.next_obs, next_budget, self.max_budget),
            batch.continues,
            torch.zeros_like(budget),
        )
        return priced_losses(self, priced, generator)[0]


def fit(
    episodes: Episodes, config: BcqSauteConfig, **options: Unpack[FitOptions]
) -> tuple[BcqSauteAgent, History]:
    """Trains an agent by BCQ-Saute; see `fit_networks`."""
    return fit_networks(BcqSauteAgent, episodes, config, BcqSauteTraining, **options)
