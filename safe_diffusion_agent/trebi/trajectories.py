"""What a trajectory is: H steps of actions and observations in one tensor `(N, H, D)`.

Of the D = A + O dimensions the actions come first, as in Diffuser. All are normalised. What lies
beyond the time limit of the episode can be masked with zeros.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# A dimension that varies by less than this, relative to its mean, is treated as constant: dividing
# by its standard deviation would only amplify rounding errors.
RELATIVE_STD_FLOOR = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """Gaussian normalisation, `(x - mean) / std`, as in Diffuser; all tensors are `(D,)`.

    Attributes:
        mean: Mean of each dimension, actions first, in environment units.
        std: Standard deviation; 1 for constant dimensions.
        low: Smallest valid normalised value: the bound of the action space, or the smallest
            observation in the data.
        high: Largest valid normalised value.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def fit(
        cls,
        actions: npt.ArrayLike,
        observations: npt.ArrayLike,
        action_low: npt.ArrayLike,
        action_high: npt.ArrayLike,
    ) -> "Normalizer":
        """Fits to `actions` `(N, A)` and `observations` `(M, O)`; the bounds are `(A,)`."""
        parts = [np.asarray(actions, np.float64), np.asarray(observations, np.float64)]
        mean = np.concatenate([part.mean(axis=0) for part in parts])
        std = np.concatenate([part.std(axis=0) for part in parts])
        std[std <= RELATIVE_STD_FLOOR * np.maximum(np.abs(mean), 1.0)] = 1.0
        low = np.concatenate([np.asarray(action_low, np.float64), parts[1].min(axis=0)])
        high = np.concatenate([np.asarray(action_high, np.float64), parts[1].max(axis=0)])
        arrays = (mean, std, (low - mean) / std, (high - mean) / std)
        return cls(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def to(self, device: torch.device | str) -> "Normalizer":
        """The same on another device."""
        return Normalizer(*(t.to(device) for t in (self.mean, self.std, self.low, self.high)))

    def normalize(self, x: Tensor, dims: slice = slice(None)) -> Tensor:
        """Normalises `x` `(*, number of dims)`, whose last axis holds the dimensions `dims`."""
        return (x - self.mean[dims]) / self.std[dims]

    def observations(self, observations: Tensor) -> Tensor:
        """Normalises observations `(*, O)`, which are the last dimensions."""
        return self.normalize(observations, slice(-observations.shape[-1], None))

    def actions(self, actions: Tensor) -> Tensor:
        """Normalises actions `(*, A)`, which are the first dimensions."""
        return self.normalize(actions, slice(actions.shape[-1]))

    def unnormalize(self, x: Tensor, dims: slice = slice(None)) -> Tensor:
        """Undoes `normalize`."""
        return x * self.std[dims] + self.mean[dims]


def time_limit_mask(remaining_steps: Tensor, horizon: int, act_dim: int, dim: int) -> Tensor:
    """Which entries of trajectories lie before the time limit, `(B, H, D)` of zeros and ones.

    With r steps remaining `(B,)`, there are actions at positions k < r and observations at k <= r.
    """
    positions = torch.arange(horizon, device=remaining_steps.device)
    remaining = remaining_steps[:, None]
    has_action = (positions < remaining)[:, :, None].expand(-1, -1, act_dim)
    has_observation = (positions <= remaining)[:, :, None].expand(-1, -1, dim - act_dim)
    return torch.cat([has_action, has_observation], dim=-1).to(torch.float32)
