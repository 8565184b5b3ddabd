"""Plain BCQ (Fujimoto et al. 2019): the best action that is like the data's, at any cost.

A line to compare returns with (Lin et al. 2023, Fig. 2); it looks at neither cost nor budget.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from safe_diffusion_agent.baselines.agent import BaselineAgent
from safe_diffusion_agent.baselines.bcq import (
    BcqNetworks,
    BcqTraining,
    PricedBatch,
    priced_losses,
)
from safe_diffusion_agent.baselines.config import (
    QUICK_BCQ,
    QUICK_TRAINING,
    BcqConfig,
    TrainingConfig,
)
from safe_diffusion_agent.baselines.fitting import FitOptions, History, fit_networks
from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.transitions import Batch


@dataclass(frozen=True, kw_only=True)
class BcqUnconstrainedConfig:
    """Settings of plain BCQ.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
        bcq: Settings of BCQ.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    bcq: BcqConfig = field(default_factory=BcqConfig)


PRESETS = {
    "paper": BcqUnconstrainedConfig(preset="paper"),
    "quick": BcqUnconstrainedConfig(preset="quick", training=QUICK_TRAINING, bcq=QUICK_BCQ),
}


class BcqUnconstrainedAgent(BaselineAgent):
    """BCQ on the reward alone."""

    method: ClassVar[str] = "bcq"
    config_class: ClassVar[Any] = BcqUnconstrainedConfig
    changeable: ClassVar[tuple[str, ...]] = ("num_actions",)
    config: BcqUnconstrainedConfig

    @classmethod
    def build(cls, config: BcqUnconstrainedConfig, task: Task) -> nn.Module:
        """See `BaselineAgent.build`."""
        dims = (task.obs_dim, task.act_dim)
        return BcqNetworks(config.training, config.bcq, *dims, has_cost=False)

    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del steps
        actions: Tensor = self.networks.best_actions(
            obs, torch.zeros_like(budget), self.config.bcq.num_actions, generator
        )
        return actions


class BcqUnconstrainedTraining(BcqTraining):
    """Trains on the rewards as they are.

    Args:
        networks: What is trained.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: BcqNetworks, config: BcqUnconstrainedConfig, task: Task):
        super().__init__(networks, config.training, config.bcq, task.cost_discount)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Training.losses`."""
        priced = PricedBatch(
            batch.obs,
            batch.actions,
            batch.rewards,
            batch.costs,
            batch.next_obs,
            batch.continues,
            torch.zeros_like(batch.rewards),
        )
        return priced_losses(self, priced, generator)[0]


def fit(
    episodes: Episodes, config: BcqUnconstrainedConfig, **options: Unpack[FitOptions]
) -> tuple[BcqUnconstrainedAgent, History]:
    """Trains an agent by plain BCQ; see `fit_networks`."""
    return fit_networks(
        BcqUnconstrainedAgent, episodes, config, BcqUnconstrainedTraining, **options
    )
