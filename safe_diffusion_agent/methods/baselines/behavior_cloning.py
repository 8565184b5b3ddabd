"""Behavior cloning: the most likely action of the data. It looks at neither reward nor budget."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.learning.networks import GaussianPolicy
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.config import TrainingConfig
from safe_diffusion_agent.methods.baselines.fitting import (
    FitOptions,
    History,
    Training,
    fit_networks,
)


@dataclass(frozen=True, kw_only=True)
class CloningConfig:
    """Settings of behavior cloning.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
    """

    preset: str = "custom"
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(num_steps=100_000, actor_learning_rate=1e-3)
    )


PRESETS = {
    "paper": CloningConfig(preset="paper"),
    "quick": CloningConfig(
        preset="quick", training=TrainingConfig(num_steps=5_000, actor_learning_rate=1e-3)
    ),
}


class CloningAgent(BaselineAgent):
    """Behavior cloning with a Gaussian policy; acts by its mean."""

    method: ClassVar[str] = "bc"
    config_class: ClassVar[Any] = CloningConfig
    config: CloningConfig

    @classmethod
    def build(cls, config: CloningConfig, task: Task) -> nn.Module:
        """See `BaselineAgent.build`."""
        return GaussianPolicy(task.obs_dim, task.act_dim, config.training.width)

    def _actions(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del budget, steps, generator
        actions: Tensor = self.networks(obs)[:, 0]
        return actions


class CloningTraining(Training):
    """Maximises the likelihood of the data's actions.

    Args:
        networks: The policy.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: GaussianPolicy, config: CloningConfig, task: Task):
        del task
        super().__init__(networks)
        self.learning_rates = {"networks": config.training.actor_learning_rate}

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Training.losses`."""
        del generator
        return {"policy": -self.networks.log_prob(batch.obs, batch.actions).mean()}


def fit(
    episodes: Episodes, config: CloningConfig, **options: Unpack[FitOptions]
) -> tuple[CloningAgent, History]:
    """Trains an agent by behavior cloning; see `fit_networks`."""
    return fit_networks(CloningAgent, episodes, config, CloningTraining, **options)
