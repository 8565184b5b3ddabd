"""BCQ-Lagrangian: BCQ on r - lambda c, where lambda is learned for one budget (Lin et al. 2023).

The multiplier of  max E[Q_r]  s.t.  E[Q_c] <= b  rises while the expected cost of the policy is
above the budget, and falls to zero while it is below: lambda <- [lambda + eta (E[Q_c] - b)]_+.
With an infinite budget it stays zero, and this is plain BCQ.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import RATIOS, PerBudgetAgent, check_ratios
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
    budget_of_ratio,
    critic_cost_discount,
)
from safe_diffusion_agent.methods.baselines.fitting import FitOptions, History, fit_per_budget
from safe_diffusion_agent.settings import check_positive


@dataclass(frozen=True, kw_only=True)
class BcqLagrangianConfig:
    """Settings of BCQ-Lagrangian.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        bcq: Settings of BCQ.
        ratios: Budgets to train for, as shares of the maximum budget.
        price_learning_rate: eta, of plain gradient steps.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bcq: BcqConfig = field(default_factory=BcqConfig)
    ratios: tuple[float, ...] = RATIOS
    price_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_positive(self, ("price_learning_rate",))


PRESETS = {
    "paper": BcqLagrangianConfig(preset="paper"),
    "quick": BcqLagrangianConfig(preset="quick", training=QUICK_TRAINING, bcq=QUICK_BCQ),
}


class BcqLagrangianNetworks(BcqNetworks):
    """BCQ's networks and the price of cost."""

    def __init__(self, config: BcqLagrangianConfig, task: Task):
        super().__init__(config.training, config.bcq, task.obs_dim, task.act_dim)
        self.price = nn.Parameter(torch.zeros(()), requires_grad=False)


class BcqLagrangianAgent(PerBudgetAgent):
    """BCQ with a learned price on cost, one training per budget."""

    method: ClassVar[str] = "bcq-lagrangian"
    config_class: ClassVar[Any] = BcqLagrangianConfig
    changeable: ClassVar[tuple[str, ...]] = ("num_actions",)
    config: BcqLagrangianConfig

    @classmethod
    def build_one(cls, config: BcqLagrangianConfig, task: Task) -> nn.Module:
        """See `PerBudgetAgent.build_one`."""
        return BcqLagrangianNetworks(config, task)

    def _actions_of(self, networks: Any, obs: Tensor, generator: torch.Generator) -> Tensor:
        price = networks.price.expand(len(obs))
        actions: Tensor = networks.best_actions(obs, price, self.config.bcq.num_actions, generator)
        return actions


class BcqLagrangianTraining(BcqTraining):
    """Trains networks and price for the one budget of the config's ratios.

    Args:
        networks: What is trained.
        config: Settings; its first ratio counts.
        task: What to train for.
    """

    def __init__(self, networks: BcqLagrangianNetworks, config: BcqLagrangianConfig, task: Task):
        cost_discount = critic_cost_discount(task, config.training)
        super().__init__(networks, config.training, config.bcq, cost_discount)
        self.budget = budget_of_ratio(config.ratios[0], task, cost_discount)
        self.price_learning_rate = config.price_learning_rate

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Training.losses`; moves the price, too."""
        price = self.networks.price
        priced = PricedBatch(
            batch.obs,
            batch.actions,
            batch.rewards,
            batch.costs,
            batch.next_obs,
            batch.continues,
            price.clone().expand(len(batch.obs)),
        )
        losses, next_cost = priced_losses(self, priced, generator)
        assert next_cost is not None
        with torch.no_grad():
            overrun = next_cost.mean() - self.budget
            price.add_(self.price_learning_rate * overrun).clamp_(min=0.0)
        return losses


def fit(
    episodes: Episodes, config: BcqLagrangianConfig, **options: Unpack[FitOptions]
) -> tuple[BcqLagrangianAgent, History]:
    """Trains an agent by BCQ-Lagrangian; see `fit_per_budget`."""
    return fit_per_budget(BcqLagrangianAgent, episodes, config, BcqLagrangianTraining, **options)
