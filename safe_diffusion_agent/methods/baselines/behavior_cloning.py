"""Behavior cloning: the most likely action of the data. It looks at neither reward nor budget."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.networks import GaussianPolicy
from safe_diffusion_agent.learning.transitions import Batch
from safe_diffusion_agent.methods.baselines.agent import BaselineAgent
from safe_diffusion_agent.methods.baselines.config import TrainingConfig
from safe_diffusion_agent.methods.baselines.fitting import BaselineTraining


def _training(num_steps: int) -> TrainingConfig:
    return TrainingConfig(num_steps=num_steps, actor_learning_rate=1e-3)


@dataclass(frozen=True, kw_only=True)
class CloningConfig:
    """Settings of behavior cloning.

    Attributes:
        preset: Name of the preset that it comes from.
        training: Shared settings.
    """

    preset: str = "custom"
    training: TrainingConfig = field(default_factory=lambda: _training(100_000))


PRESETS = {
    "paper": CloningConfig(preset="paper"),
    "quick": CloningConfig(preset="quick", training=_training(5_000)),
}


class CloningTraining(BaselineTraining):
    """Maximizes the likelihood of the data's actions.

    Args:
        networks: The policy.
        config: Settings.
        task: What to train for.
    """

    def __init__(self, networks: GaussianPolicy, config: CloningConfig, task: Task):
        del task
        super().__init__(networks, config)
        self.learning_rates = {"networks": config.training.actor_learning_rate}

    def batch_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the loss of a batch."""
        del generator
        return {"policy": -self.networks.log_prob(batch.obs, batch.actions).mean()}


class CloningAgent(BaselineAgent):
    """Behavior cloning with a Gaussian policy; acts by its mean."""

    method: ClassVar[str] = "bc"
    unread: ClassVar[tuple[str, ...]] = (
        *("critic_learning_rate", "generator_learning_rate", "target_rate"),
        *("discount", "cost_discount"),
    )
    config_class: ClassVar[Any] = CloningConfig
    training_class: ClassVar[Any] = CloningTraining
    config: CloningConfig

    @classmethod
    def build(cls, config: CloningConfig, task: Task) -> nn.Module:
        """Returns an untrained policy."""
        return GaussianPolicy(task.obs_dim, task.act_dim, config.training.width)

    def _choose(
        self, networks: Any, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        del budget, steps, generator
        actions: Tensor = networks(obs)[:, 0]
        return actions
