"""BCORLE(lambda): BCQ whose state holds the price of cost (Zhang et al., NeurIPS 2021).

Every transition is trained with a random price lambda in [0, lambda_max], which is a part of its
state, on the reward r - lambda c. One training thus gives a policy for every price, and a larger
price spends less. To act, bisection finds the smallest price whose policy keeps the budget.

Departure: the paper looks for one price per budget, by offline evaluation over the start states.
Here the critic of cost is that evaluation, at the observation and for the budget that remains, so
that the price follows a budget in real time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.bcq import QUICK, BcqAgent, BcqMethodConfig, BcqTraining
from safe_diffusion_agent.methods.baselines.config import remaining_critic_budget
from safe_diffusion_agent.settings import check_positive


@dataclass(frozen=True, kw_only=True)
class BcorleConfig(BcqMethodConfig):
    """Settings of BCORLE(lambda).

    Attributes:
        max_price: lambda_max (Lin et al. 2023, App. D: 20).
        num_bisections: Halvings of [0, lambda_max] per action.
    """

    max_price: float = 20.0
    num_bisections: int = 10

    def __post_init__(self) -> None:
        check_positive(self, ("max_price", "num_bisections"))


PRESETS = {"paper": BcorleConfig(preset="paper"), "quick": BcorleConfig(**QUICK)}


def with_price(obs: Tensor, price: Tensor, max_price: float) -> Tensor:
    """Returns states `(N, O + 1)`: observations and lambda / lambda_max."""
    return torch.cat([obs, price[:, None] / max_price], dim=1)


def bisect(
    act: Callable[[Tensor], tuple[Tensor, Tensor]],
    budget: Tensor,
    max_price: float,
    num_bisections: int,
) -> Tensor:
    """Returns actions `(N, A)` of the smallest price that keeps the budget, by bisection.

    Args:
        act: Maps prices `(N,)` to actions `(N, A)` and their expected costs `(N,)`.
        budget: `(N,)`, in the units of the expected costs.
        max_price: The largest price; its actions are taken if no price keeps the budget.
        num_bisections: Halvings.
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
    """Trains with a random price per transition."""

    def priced(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """Returns a batch whose states hold prices, and the prices `(N,)`."""
        largest = self.config.max_price
        shares = torch.rand(len(batch.obs), generator=generator, device=generator.device)
        price = largest * shares
        obs, next_obs = (with_price(x, price, largest) for x in (batch.obs, batch.next_obs))
        return replace(batch, obs=obs, next_obs=next_obs), price


class BcorleAgent(BcqAgent):
    """BCQ for every price of cost; the price is found from the remaining budget."""

    method: ClassVar[str] = "bcorle"
    config_class: ClassVar[Any] = BcorleConfig
    training_class: ClassVar[Any] = BcorleTraining
    unread: ClassVar[tuple[str, ...]] = ()
    changeable: ClassVar[tuple[str, ...]] = ("num_actions", "num_bisections")
    extra_dims, has_cost = 1, True

    @property
    def looks_at_time(self) -> bool:
        """Whether the budget is converted by the steps that are left."""
        return self.task.cost_discount == 1.0

    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        config = self.config

        def act(price: Tensor) -> tuple[Tensor, Tensor]:
            states = with_price(obs, price, config.max_price)
            actions = networks.best_actions(states, price, config.bcq.num_actions, generator)
            return actions, networks.cost_critic(states, actions).mean(dim=0)

        left = remaining_critic_budget(budget, steps, self.task, config.training)
        return bisect(act, left, config.max_price, config.num_bisections)
