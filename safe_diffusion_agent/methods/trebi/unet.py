"""The temporal U-Net of Diffuser (Janner et al. 2022) and its encoder half, as TREBI uses them.

Trajectories are `(N, H, D)`, actions first. Convolutions run over the horizon H, the D dimensions
are channels (Lin et al. 2023, App. D). Sizes that the paper does not give (base width, kernel
sizes, groups) are Diffuser's.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of the diffusion step, `(N,) -> (N, width)`."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        frequencies = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(half))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, diffusion_step: Tensor) -> Tensor:
        """Embeds `(N,)` steps."""
        angles = diffusion_step[:, None] * self.frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class StepEmbedding(nn.Module):
    """Embeds the diffusion step, and the time to go if there is one, `-> (N, width)`."""

    def __init__(self, width: int, time_to_go: bool = False):
        super().__init__()
        self.network = nn.Sequential(
            SinusoidalEmbedding(width),
            nn.Linear(width, 4 * width),
            nn.Mish(),
            nn.Linear(4 * width, width),
        )
        self.time_to_go = nn.Linear(2, width) if time_to_go else None

    def forward(self, diffusion_step: Tensor, time_to_go: Tensor | None = None) -> Tensor:
        """Embeds `(N,)` steps and `(N, 1)` times."""
        embedding: Tensor = self.network(diffusion_step)
        if self.time_to_go is not None:
            assert time_to_go is not None
            embedding = embedding + self.time_to_go(torch.cat([time_to_go, time_to_go**2], dim=1))
        return embedding


class ConvBlock(nn.Sequential):
    """Convolution of width 5, group normalization over 8 groups, Mish."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv1d(in_channels, out_channels, 5, padding=2),
            nn.GroupNorm(8, out_channels),
            nn.Mish(),
        )


class ResidualBlock(nn.Module):
    """Two convolution blocks, shifted by the step embedding in between, plus a skip."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int):
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)
        self.shift = nn.Sequential(nn.Mish(), nn.Linear(embedding_dim, out_channels))
        self.skip = (
            nn.Conv1d(in_channels, out_channels, 1)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps `(N, in_channels, L)` to `(N, out_channels, L)`."""
        hidden = self.first(x) + self.shift(embedding)[:, :, None]
        result: Tensor = self.second(hidden) + self.skip(x)
        return result


class ResidualPair(nn.Module):
    """Two residual blocks, one level of the U-Net."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int):
        super().__init__()
        self.first = ResidualBlock(in_channels, out_channels, embedding_dim)
        self.second = ResidualBlock(out_channels, out_channels, embedding_dim)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps `(N, in_channels, L)` to `(N, out_channels, L)`."""
        result: Tensor = self.second(self.first(x, embedding), embedding)
        return result


def downsample(channels: int) -> nn.Conv1d:
    """Halves the horizon, rounding up."""
    return nn.Conv1d(channels, channels, 3, stride=2, padding=1)


def upsample(channels: int) -> nn.ConvTranspose1d:
    """Doubles the horizon."""
    return nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)


class TemporalUNet(nn.Module):
    """Denoiser: predicts the clean trajectory from a noised one.

    Args:
        trajectory_dim: D, actions and observations.
        base_width: Channels of the first level before multiplication; also the embedding's width.
        width_mults: Channel multipliers, one per level.
    """

    def __init__(self, trajectory_dim: int, base_width: int, width_mults: Sequence[int]):
        super().__init__()
        widths = [trajectory_dim, *(base_width * mult for mult in width_mults)]
        levels = list(pairwise(widths))
        inner = levels[1:]  # the first level's skip is not used, as in Diffuser
        self.embedding = StepEmbedding(base_width)
        self.down = nn.ModuleList(ResidualPair(low, high, base_width) for low, high in levels)
        self.downsamples = nn.ModuleList(downsample(low) for low, _ in inner)
        self.middle = ResidualPair(widths[-1], widths[-1], base_width)
        self.up = nn.ModuleList(
            ResidualPair(2 * high, low, base_width) for low, high in reversed(inner)
        )
        self.upsamples = nn.ModuleList(upsample(low) for low, _ in reversed(inner))
        self.head = nn.Sequential(
            ConvBlock(base_width, base_width), nn.Conv1d(base_width, trajectory_dim, 1)
        )

    def forward(self, x: Tensor, diffusion_step: Tensor) -> Tensor:
        """Maps `(N, H, D)` at steps `(N,)` or `(1,)` to clean trajectories `(N, H, D)`.

        H must be divisible by 2^(levels - 1).
        """
        embedding = self.embedding(diffusion_step).to(x.dtype)
        x = self.down[0](x.transpose(1, 2), embedding)  # (N, width, H)
        skips = []
        for halve, level in zip(self.downsamples, self.down[1:], strict=True):
            x = level(halve(x), embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for level, double in zip(self.up, self.upsamples, strict=True):
            x = double(level(torch.cat([x, skips.pop()], dim=1), embedding))
        result: Tensor = self.head(x)
        return result.transpose(1, 2)


class TrajectoryEncoder(nn.Module):
    """Value network: the encoder half of the U-Net, then two linear layers.

    The reference code derives the size of the flattened encoding from one halving too few, so its
    network cannot be built for the paper's H = 128. Here the real size is taken.

    Args:
        trajectory_dim: D, actions and observations.
        horizon: H.
        base_width: As in `TemporalUNet`.
        width_mults: As in `TemporalUNet`.
        num_outputs: Values per trajectory.
        time_to_go: Whether the share of the episode that is left is an input.
    """

    def __init__(
        self,
        trajectory_dim: int,
        horizon: int,
        base_width: int,
        width_mults: Sequence[int],
        num_outputs: int = 1,
        time_to_go: bool = False,
    ):
        super().__init__()
        widths = [trajectory_dim, *(base_width * mult for mult in width_mults)]
        half, quarter = widths[-1] // 2, widths[-1] // 4
        self.embedding = StepEmbedding(base_width, time_to_go)
        self.blocks = nn.ModuleList(
            [
                *(ResidualPair(low, high, base_width) for low, high in pairwise(widths)),
                ResidualBlock(widths[-1], half, base_width),
                ResidualBlock(half, quarter, base_width),
            ]
        )
        self.downsamples = nn.ModuleList(
            downsample(width) for width in (*widths[1:], half, quarter)
        )
        for _ in self.downsamples:
            horizon = (horizon + 1) // 2
        encoding_dim = quarter * horizon
        self.head = nn.Sequential(
            nn.Linear(encoding_dim + base_width, encoding_dim // 2),
            nn.Mish(),
            nn.Linear(encoding_dim // 2, num_outputs),
        )

    def forward(
        self, x: Tensor, diffusion_step: Tensor, time_to_go: Tensor | None = None
    ) -> Tensor:
        """Maps `(N, H, D)` at steps `(N,)` or `(1,)`, time `(N, 1)`, to `(N, num_outputs)`."""
        embedding = self.embedding(diffusion_step, time_to_go).to(x.dtype)
        x = x.transpose(1, 2)  # (N, D, H)
        for block, halve in zip(self.blocks, self.downsamples, strict=True):
            x = halve(block(x, embedding))
        encoding = torch.cat([x.flatten(1), embedding.expand(len(x), -1)], dim=1)
        result: Tensor = self.head(encoding)
        return result
