"""BCORLE(lambda): BCQ whose state holds the price of cost (Zhang et al., NeurIPS 2021).

Every transition is trained with a random price lambda in [0, lambda_max], which is a part of its
state, on the reward r - lambda c. One training thus gives a policy for every price, and a larger
price spends less. To act, bisection finds the smallest price whose policy keeps the budget.

Departure: the paper looks for one price per budget, by offline evaluation over the start states.
Here the critic of cost is that evaluation, at the observation and for the budget that remains, so
that the price follows a budget in real time.
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
    critic_budget,
    critic_cost_discount,
)
from safe_diffusion_agent.methods.baselines.fitting import FitOptions, History, fit_networks
from safe_diffusion_agent.settings import check_positive


@dataclass(frozen=True, kw_only=True)
class BcorleConfig:
    """Settings of BCORLE(lambda).

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        bcq: Settings of BCQ.
        max_price: lambda_max (Lin et al. 2023, App. D: 20).
        num_bisections: Halvings of [0, lambda_max] per action.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bcq: BcqConfig = field(default_factory=BcqConfig)
    max_price: float = 20.0
    num_bisections: int = 10

    def __post_init__(self) -> None:
        check_positive(self, ("max_price", "num_bisections"))


PRESETS = {
    "paper": BcorleConfig(preset="paper"),
    "quick": BcorleConfig(preset="quick", training=QUICK_TRAINING, bcq=QUICK_BCQ),
}


def with_price(obs: Tensor, price: Tensor, max_price: float) -> Tensor:
    """States `(N, O + 1)`: observations and lambda / lambda_max."""
    return torch.cat([obs, price[:, None] / max_price], dim=1)


class BcorleAgent(BaselineAgent):
    """BCQ for every price of cost; the price is found from the remaining budget."""

    method: ClassVar[str] = "bcorle"
    config_class: ClassVar[Any] = BcorleConfig
    changeable: ClassVar[tuple[str, ...]] = ("num_actions", "num_bisections")
    config: BcorleConfig

    @property
    def looks_at_time(self) -> bool:
        """See `Agent.looks_at_time`: the budget of the steps that are left is converted."""
        return self.task.cost_discount == 1.0

    @classmethod
    def build(cls, config: BcorleConfig, task: Task) -> nn.Module:
        """See `BaselineAgent.build`."""
        return BcqNetworks(config.training, config.bcq, task.obs_dim + 1, task.act_dim)

    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        critic_discount = critic_cost_discount(self.task, self.config.training)
        budget = critic_budget(
            budget.clamp_min(0.0), steps, self.task.cost_discount, critic_discount
        )

        def act(price: Tensor) -> tuple[Tensor, Tensor]:
            states = with_price(obs, price, self.config.max_price)
            num = self.config.bcq.num_actions
            actions: Tensor = self.networks.best_actions(states, price, num, generator)
            return actions, self.networks.cost_critic(states, actions).mean(dim=0)

        return bisect(act, budget, self.config.max_price, self.config.num_bisections)


def bisect(act: Any, budget: Tensor, max_price: float, num_bisections: int) -> Tensor:
    """Actions of the smallest price that keeps the budget, by bisection.

    Args:
        act: Maps prices `(N,)` to actions `(N, A)` and their expected costs `(N,)`.
        budget: `(N,)`, in the units of the expected costs.
        max_price: The largest price; its actions are taken if no price keeps the budget.
        num_bisections: Halvings.

    Returns:
        `(N, A)`.
    """
    low, high = torch.zeros_like(budget), torch.full_like(budget, max_price)
    actions, cost = act(low)
    free = cost <= budget
    chosen, _ = act(high)
    for _ in range(num_bisections):
        middle = (low + high) / 2
        candidate, cost = act(middle)
        kept = cost <= budget
        high, low = torch.where(kept, middle, high), torch.where(kept, low, middle)
        chosen = torch.where(kept[:, None], candidate, chosen)
    return torch.where(free[:, None], actions, chosen)


class BcorleTraining(BcqTraining):
    """Trains with a random price per transition.

    Args:
        networks: What is trained.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: BcqNetworks, config: BcorleConfig, task: Task):
        cost_discount = critic_cost_discount(task, config.training)
        super().__init__(networks, config.training, config.bcq, cost_discount)
        self.max_price = config.max_price

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Training.losses`."""
        shares = torch.rand(len(batch.obs), generator=generator, device=generator.device)
        price = self.max_price * shares
        priced = PricedBatch(
            with_price(batch.obs, price, self.max_price),
            batch.actions,
            batch.rewards,
            batch.costs,
            with_price(batch.next_obs, price, self.max_price),
            batch.continues,
            price,
        )
        return priced_losses(self, priced, generator)[0]


def fit(
    episodes: Episodes, config: BcorleConfig, **options: Unpack[FitOptions]
) -> tuple[BcorleAgent, History]:
    """Trains an agent by BCORLE(lambda); see `fit_networks`."""
    return fit_networks(BcorleAgent, episodes, config, BcorleTraining, **options)
