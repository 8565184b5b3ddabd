"""Training trajectories: windows of H steps cut out of whole episodes.

A window starting at step s of an episode holds, at position k, the action and the observation of
step s + k, actions first, normalised: `(H, D)`. One row past the last step holds the final
observation and no action; everything else beyond the end is zero.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, values_to_go
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer, time_limit_mask


@dataclass(frozen=True)
class Batch:
    """A batch of training trajectories.

    Attributes:
        trajectories: `(B, H, D)`, normalised.
        mask: `(B, H, D)`: 0 beyond the time limit of the episode, 1 elsewhere.
        returns: `(B,)`, discounted return from the window's start to the episode's end.
        costs: `(B,)`, the same of the cost.
        remaining_steps: `(B,)`, steps to the time limit; 0 if there is none.
    """

    trajectories: Tensor
    mask: Tensor
    returns: Tensor
    costs: Tensor
    remaining_steps: Tensor


class Windows:
    """All training trajectories of a dataset, on one device.

    Args:
        episodes: The dataset.
        normalizer: Fitted to it.
        horizon: H.
        discount: Of the return.
        cost_discount: gamma_c.
        coverage: See `TrainingConfig.windows`.
        termination_penalty: See `TrainingConfig.termination_penalty`.
        device: Where the data live.

    Raises:
        ValueError: No window fits, or the coverage needs a time limit that the dataset lacks.
    """

    def __init__(
        self,
        episodes: Episodes,
        normalizer: Normalizer,
        horizon: int,
        *,
        discount: float,
        cost_discount: float,
        coverage: Literal["inside", "all"],
        termination_penalty: float = 0.0,
        device: torch.device | str = "cpu",
    ):
        limit = episodes.max_episode_steps
        self._horizon = horizon
        self._act_dim = episodes.actions.shape[1]
        lengths = episodes.lengths
        first_steps = np.cumsum(lengths) - lengths
        # Position of each step in its episode, and its row among the T + 1 rows of each episode.
        position = np.arange(lengths.sum()) - np.repeat(first_steps, lengths)
        row = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)
        last_row = np.repeat(np.cumsum(lengths + 1) - 1, lengths)

        raw_rows = np.zeros((len(episodes.observations), self._act_dim), np.float32)
        raw_rows[row] = episodes.actions
        rows = torch.tensor(np.concatenate([raw_rows, episodes.observations], axis=1))
        rows = normalizer.to("cpu").normalize(rows)
        final_rows = np.cumsum(lengths + 1) - 1
        rows[final_rows, : self._act_dim] = 0.0
        self._rows = torch.cat([rows, torch.zeros(1, rows.shape[1])]).to(device)

        penalty = np.zeros(len(position))
        penalty[np.cumsum(lengths) - 1] = termination_penalty * episodes.terminated
        returns = values_to_go(episodes.rewards - penalty, lengths, discount)
        costs = values_to_go(episodes.costs + penalty, lengths, cost_discount)

        remaining = (limit or 0) - position
        starts = _starts(position, lengths, limit, horizon, coverage)
        self._masked = coverage == "all"
        self._row, self._last_row, self._remaining = (
            torch.tensor(array[starts], device=device) for array in (row, last_row, remaining)
        )
        self._returns, self._costs = (
            torch.tensor(array[starts], dtype=torch.float32, device=device)
            for array in (returns, costs)
        )

    def __len__(self) -> int:
        return len(self._row)

    @property
    def returns(self) -> Tensor:
        """Return-to-go of every window, `(len(self),)`."""
        return self._returns

    @property
    def costs(self) -> Tensor:
        """Cost-to-go of every window, `(len(self),)`."""
        return self._costs

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draws windows uniformly, with replacement."""
        chosen = torch.randint(
            len(self), (batch_size,), generator=generator, device=self._row.device
        )
        return self.get(chosen)

    def get(self, chosen: Tensor) -> Batch:
        """The windows of the given indices `(B,)`."""
        offsets = torch.arange(self._horizon, device=self._row.device)
        rows = self._row[chosen, None] + offsets
        beyond = len(self._rows) - 1  # a row of zeros
        rows = torch.where(rows <= self._last_row[chosen, None], rows, beyond)
        trajectories = self._rows[rows]  # (B, H, D)
        remaining = self._remaining[chosen]
        mask = (
            time_limit_mask(remaining, self._horizon, self._act_dim, trajectories.shape[-1])
            if self._masked
            else torch.ones_like(trajectories)
        )
        return Batch(
            trajectories=trajectories * mask,
            mask=mask,
            returns=self._returns[chosen],
            costs=self._costs[chosen],
            remaining_steps=remaining,
        )


def _starts(
    position: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    limit: int | None,
    horizon: int,
    coverage: Literal["inside", "all"],
) -> npt.NDArray[np.int64]:
    """Indices of the steps at which a window starts."""
    if coverage == "all":
        if limit is None:
            raise ValueError("windows='all' needs a dataset whose episodes have a time limit.")
        return np.arange(len(position))
    starts = np.flatnonzero(position <= (limit or int(lengths.max())) - horizon)
    if len(starts) == 0:
        raise ValueError(
            f"No episode is as long as the horizon {horizon} (the longest has {lengths.max()} "
            "steps). Use a smaller horizon, or windows='all'."
        )
    return starts
