"""The networks of TREBI (Lin et al. 2023, App. D): a denoiser, and two values of its plans."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.trebi.config import ModelConfig
from safe_diffusion_agent.methods.trebi.mlp import MlpDenoiser, MlpValue
from safe_diffusion_agent.methods.trebi.unet import TemporalUNet, TrajectoryEncoder


class ValueNetworks(nn.Module):
    """A denoiser, and the values of reward and cost.

    The values are of the trajectory and all that follows it up to the end of the episode (Monte
    Carlo), in the units of rewards and costs, predicted from a trajectory noised to a diffusion
    step. The outputs of `cost` are the mean, then the quantiles `config.cost_quantiles`.

    Args:
        config: Sizes.
        task: Dimensions.
    """

    def __init__(self, config: ModelConfig, task: Task):
        super().__init__()
        self.denoiser = new_denoiser(config, task)
        self.reward = _new_value(config, task, 1)
        self.cost = _new_value(config, task, 1 + len(config.cost_quantiles))

    def rescale(self, returns: tuple[Tensor, Tensor], costs: tuple[Tensor, Tensor]) -> None:
        """Gives the values other units: their outputs become shift + scale * output.

        Args:
            returns: Shift and scale of the value of reward.
            costs: The same of cost.
        """
        _rescale(self.reward, *returns)
        _rescale(self.cost, *costs)


def new_denoiser(config: ModelConfig, task: Task) -> nn.Module:
    """Returns an untrained denoiser."""
    dim = task.obs_dim + task.act_dim
    if config.network == "unet":
        return TemporalUNet(dim, config.base_width, config.width_mults)
    return MlpDenoiser(
        dim, config.horizon, config.diffusion_steps, config.mlp_width, config.mlp_blocks
    )


def _new_value(config: ModelConfig, task: Task, num_outputs: int) -> nn.Module:
    dim, time_to_go = task.obs_dim + task.act_dim, config.time_to_go
    if config.network == "unet":
        sizes = (config.horizon, config.base_width, config.width_mults)
        return TrajectoryEncoder(dim, *sizes, num_outputs, time_to_go)
    return MlpValue(
        dim,
        config.horizon,
        config.diffusion_steps,
        config.mlp_value_width,
        num_outputs,
        time_to_go,
    )


def diffusion_networks(networks: nn.Module) -> dict[str, nn.Module]:
    """Returns those that see a diffusion step, by name: the denoiser, and values if there are."""
    return {name: n for name, n in networks.named_children() if hasattr(n, "embedding")}


def in_precision(networks: nn.Module, precision: str) -> Any:
    """Returns the same networks, or copies whose diffusion networks compute in bfloat16."""
    if precision == "float32":
        return networks
    copies = copy.deepcopy(networks)
    for name, network in diffusion_networks(copies).items():
        setattr(copies, name, _InBfloat16(network))
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
def _rescale(value: nn.Module, shift: Tensor, scale: Tensor) -> None:
    """Changes the last layer of a value network so that it outputs `shift + scale * output`."""
    last = list(value.modules())[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
