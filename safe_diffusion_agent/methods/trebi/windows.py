"""Training trajectories: windows of H steps cut out of whole episodes.

A window starting at step s of an episode holds, at position k, the action and the observation of
step s + k, actions first, normalized: `(H, D)`. One row past the last step holds the final
observation and no action; everything else beyond the end is zero, after normalization (in the
authors' code before it).
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
        trajectories: `(B, H, D)`, normalized.
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
        coverage: `"inside"`: windows start where all of them fits below the time limit. `"all"`:
            they start everywhere, and what lies beyond the limit is masked.
        termination_penalty: Added to the last cost of episodes that terminate, and subtracted from
            their last reward.
        device: Where the data live.

    Attributes:
        returns: Return-to-go of every window, `(len(self),)`.
        costs: The same of the cost.

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
        limit, lengths = episodes.max_episode_steps, episodes.lengths
        self._horizon, self._masked = horizon, coverage == "all"
        self._act_dim = episodes.actions.shape[1]
        rows = np.zeros((len(episodes.observations), self._act_dim), np.float32)
        rows[episodes.rows] = episodes.actions
        trajectory = torch.tensor(np.concatenate([rows, episodes.observations], axis=1))
        trajectory = normalizer.to("cpu").trajectories(trajectory)
        trajectory[episodes.final_rows, : self._act_dim] = 0.0
        self._rows = torch.cat([trajectory, torch.zeros(1, trajectory.shape[1])]).to(device)

        penalty = np.zeros(len(episodes.rewards))
        penalty[episodes.last_steps] = termination_penalty * episodes.terminated
        returns = values_to_go(episodes.rewards - penalty, lengths, discount)
        costs = values_to_go(episodes.costs + penalty, lengths, cost_discount)

        remaining = (limit or 0) - episodes.positions
        last_row = np.repeat(episodes.final_rows, lengths)
        starts = _starts(episodes, horizon, coverage)
        self._row, self._last_row, self._remaining = (
            torch.tensor(array[starts], device=device)
            for array in (episodes.rows, last_row, remaining)
        )
        self.returns, self.costs = (
            torch.tensor(array[starts], dtype=torch.float32, device=device)
            for array in (returns, costs)
        )

    def __len__(self) -> int:
        return len(self._row)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draws windows uniformly, with replacement."""
        chosen = torch.randint(
            len(self), (batch_size,), generator=generator, device=self._row.device
        )
        return self.get(chosen)

    def get(self, chosen: Tensor) -> Batch:
        """Returns the windows of the given indices `(B,)`."""
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
            returns=self.returns[chosen],
            costs=self.costs[chosen],
            remaining_steps=remaining,
        )


def _starts(
    episodes: Episodes, horizon: int, coverage: Literal["inside", "all"]
) -> npt.NDArray[np.int64]:
    """Returns the indices of the steps at which a window starts."""
    limit, longest = episodes.max_episode_steps, int(episodes.lengths.max())
    if coverage == "all":
        if limit is None:
            raise ValueError("windows='all' needs a dataset whose episodes have a time limit.")
        return np.arange(len(episodes.rewards))
    starts = np.flatnonzero(episodes.positions <= (limit or longest) - horizon)
    if len(starts) == 0:
        raise ValueError(
            f"No episode is as long as the horizon {horizon} (the longest has {longest} steps). "
            "Use a smaller horizon, or windows='all'."
        )
    return starts
