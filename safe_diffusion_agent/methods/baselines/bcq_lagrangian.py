"""BCQ-Lagrangian: BCQ on r - lambda c, where lambda is learned for one budget (Lin et al. 2023).

The multiplier of  max E[Q_r]  s.t.  E[Q_c] <= b  rises while the expected cost of the policy is
above the budget, and falls to zero while it is below: lambda <- [lambda + eta (E[Q_c] - b)]_+.
With an infinite budget it stays zero, and this is plain BCQ. The expectation is over all states of
the data, as in OSRL, where the budget is for an episode from its start.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.bcq import (
    QUICK,
    BcqAgent,
    BcqMethodConfig,
    BcqNetworks,
    BcqTraining,
    priced_losses,
)
from safe_diffusion_agent.methods.baselines.config import RATIOS, budget_of_ratio, check_ratios
from safe_diffusion_agent.settings import check_positive


@dataclass(frozen=True, kw_only=True)
class BcqLagrangianConfig(BcqMethodConfig):
    """Settings of BCQ-Lagrangian.

    Attributes:
        ratios: Budgets to train for, as shares of the maximum budget.
        price_learning_rate: eta, of plain gradient steps.
    """

    ratios: tuple[float, ...] = RATIOS
    price_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_positive(self, ("price_learning_rate",))


PRESETS = {
    "paper": BcqLagrangianConfig(preset="paper"),
    "quick": BcqLagrangianConfig(**QUICK),
}


class BcqLagrangianNetworks(BcqNetworks):
    """BCQ's networks and the price of cost."""

    def __init__(self, config: BcqLagrangianConfig, task: Task):
        super().__init__(config.training, config.bcq, task.obs_dim, task.act_dim)
        self.price = nn.Parameter(torch.zeros(()), requires_grad=False)


class BcqLagrangianTraining(BcqTraining):
    """Trains networks and price for the one budget of the config's ratios."""

    def __init__(self, networks: BcqLagrangianNetworks, config: BcqLagrangianConfig, task: Task):
        super().__init__(networks, config, task)
        (ratio,) = config.ratios
        self.budget = budget_of_ratio(ratio, task, self.cost_discount)

    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of a batch; moves the price, too."""
        price = self.networks.price
        prices = price.clone().expand(len(batch.obs))
        losses, next_cost = priced_losses(self, batch, prices, generator)
        assert next_cost is not None
        with torch.no_grad():
            overrun = next_cost.mean() - self.budget
            price.add_(self.config.price_learning_rate * overrun).clamp_(min=0.0)
        return losses


class BcqLagrangianAgent(BcqAgent):
    """BCQ with a learned price on cost, one training per budget."""

    method: ClassVar[str] = "bcq-lagrangian"
    config_class: ClassVar[Any] = BcqLagrangianConfig
    training_class: ClassVar[Any] = BcqLagrangianTraining
    unread: ClassVar[tuple[str, ...]] = ()
    per_budget = True

    @classmethod
    def build(cls, config: BcqLagrangianConfig, task: Task) -> nn.Module:
        """Returns untrained networks for one budget."""
        return BcqLagrangianNetworks(config, task)

    def _states(self, networks: Any, obs: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        del budget
        return obs, networks.price.expand(len(obs))
