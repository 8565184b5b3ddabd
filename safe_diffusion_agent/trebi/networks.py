"""The three networks of TREBI (Lin et al. 2023, App. D): a denoiser and two value functions."""

import torch
from torch import Tensor, nn

from safe_diffusion_agent.trebi.config import ModelConfig
from safe_diffusion_agent.trebi.mlp import MlpDenoiser, MlpValue
from safe_diffusion_agent.trebi.unet import TemporalUNet, TrajectoryEncoder


class TrebiNetworks(nn.Module):
    """Denoiser, reward value and cost value.

    The values are of the trajectory and all that follows it up to the end of the episode (Monte
    Carlo), in the units of rewards and costs, predicted from a trajectory noised to a diffusion
    step. The outputs of `cost` are the mean, then the quantiles `config.cost_quantiles`.

    Args:
        config: Sizes.
        obs_dim: O.
        act_dim: A.
    """

    def __init__(self, config: ModelConfig, obs_dim: int, act_dim: int):
        super().__init__()
        dim = obs_dim + act_dim
        num_costs = 1 + len(config.cost_quantiles)
        self.denoiser: nn.Module
        self.reward: nn.Module
        self.cost: nn.Module
        if config.network == "unet":
            unet = (config.base_width, config.width_mults)
            encoder = (dim, config.horizon, *unet)
            self.denoiser = TemporalUNet(dim, *unet)
            self.reward = TrajectoryEncoder(*encoder, 1, config.time_to_go)
            self.cost = TrajectoryEncoder(*encoder, num_costs, config.time_to_go)
        else:
            mlp = (dim, config.horizon, config.diffusion_steps)
            value = (*mlp, config.mlp_value_width)
            self.denoiser = MlpDenoiser(*mlp, config.mlp_width, config.mlp_blocks)
            self.reward = MlpValue(*value, 1, config.time_to_go)
            self.cost = MlpValue(*value, num_costs, config.time_to_go)


@torch.no_grad()
def rescale_output(value: nn.Module, shift: Tensor | float, scale: Tensor | float) -> None:
    """Changes the last layer of a value network so that it outputs `shift + scale * output`."""
    last = list(value.modules())[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
