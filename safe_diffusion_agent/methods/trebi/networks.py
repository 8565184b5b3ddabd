"""The networks of TREBI (Lin et al. 2023, App. D): a denoiser, and what judges its plans."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble
from safe_diffusion_agent.methods.trebi.config import ModelConfig
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.mlp import MlpDenoiser, MlpValue
from safe_diffusion_agent.methods.trebi.unet import TemporalUNet, TrajectoryEncoder


class TrebiNetworks(nn.Module):
    """A denoiser, and either two value networks or one-step models and a frontier critic.

    The values (`reward` and `cost`) are of the trajectory and all that follows it up to the end of
    the episode (Monte Carlo), in the units of rewards and costs, predicted from a trajectory noised
    to a diffusion step. The outputs of `cost` are the mean, then the quantiles
    `config.cost_quantiles`.

    Args:
        config: Sizes, and which networks there are.
        task: Dimensions, time limit and discount.

    Raises:
        ValueError: The frontier needs a time limit, which the task lacks.
    """

    def __init__(self, config: ModelConfig, task: Task):
        super().__init__()
        dim = task.obs_dim + task.act_dim
        self.denoiser: nn.Module
        if config.network == "unet":
            self.denoiser = TemporalUNet(dim, config.base_width, config.width_mults)
        else:
            self.denoiser = MlpDenoiser(
                dim, config.horizon, config.diffusion_steps, config.mlp_width, config.mlp_blocks
            )
        if config.judge == "values":
            self.reward = _value_network(config, dim, 1)
            self.cost = _value_network(config, dim, 1 + len(config.cost_quantiles))
        else:
            self.dynamics = DynamicsEnsemble(
                task.obs_dim, task.act_dim, config.model_width, config.num_models
            )
            if task.max_episode_steps is None:
                raise ValueError("The frontier needs a dataset whose episodes have a time limit.")
            self.critic = FrontierCritic(
                task.obs_dim,
                task.act_dim,
                config.critic_width,
                task.max_episode_steps,
                config.discount or task.cost_discount,
                config.cost_discount or task.cost_discount,
            )

    def unets(self) -> list[nn.Module]:
        """Denoiser and values, as far as there are any: what is large with `network="unet"`."""
        names = ("denoiser", "reward", "cost")
        return [getattr(self, name) for name in names if hasattr(self, name)]


def _value_network(config: ModelConfig, dim: int, num_outputs: int) -> nn.Module:
    if config.network == "unet":
        return TrajectoryEncoder(
            dim,
            config.horizon,
            config.base_width,
            config.width_mults,
            num_outputs,
            config.time_to_go,
        )
    return MlpValue(
        dim,
        config.horizon,
        config.diffusion_steps,
        config.mlp_value_width,
        num_outputs,
        config.time_to_go,
    )


def in_precision(networks: TrebiNetworks, precision: str) -> TrebiNetworks:
    """The same networks, or copies of denoiser and values that compute in bfloat16."""
    if precision == "float32":
        return networks
    copies = copy.deepcopy(networks)
    for name in ("denoiser", "reward", "cost"):
        if hasattr(copies, name):
            setattr(copies, name, _InBfloat16(getattr(copies, name)))
    return copies


class _InBfloat16(nn.Module):
    """Computes in bfloat16; inputs, outputs and the embedding of the step are float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        embedding = copy.deepcopy(network.embedding)
        self.network = network.to(torch.bfloat16)
        self.network.embedding = embedding

    def forward(self, x: Tensor, *step_and_time: Any) -> Tensor:
        result: Tensor = self.network(x.to(torch.bfloat16), *step_and_time)
        return result.float()


@torch.no_grad()
def rescale_output(value: nn.Module, shift: Tensor | float, scale: Tensor | float) -> None:
    """Changes the last layer of a value network so that it outputs `shift + scale * output`."""
    last = list(value.modules())[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
