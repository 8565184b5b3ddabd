"""Pieces of episodes of a few steps, which the models and the frontier critic learn from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.trebi.trajectories import Normalizer


@dataclass(frozen=True)
class Backup:
    """From states to states some steps later, whose values complete the sums.

    Attributes:
        obs: `(N, O)`, normalised.
        actions: `(N, A)`, normalised; the first ones.
        returns: `(N,)`, discounted sum of the rewards in between.
        costs: `(N,)`, discounted sum of the costs in between.
        next_obs: `(N, O)`, normalised.
        survival: `(N,)`, probability that the episode did not terminate in between.
        num_steps: `(N,)`, steps in between; at least 1.
    """

    obs: Tensor
    actions: Tensor
    returns: Tensor
    costs: Tensor
    next_obs: Tensor
    survival: Tensor
    num_steps: Tensor


class Pieces:
    """All transitions of a dataset, and pieces of several of them, on one device.

    Args:
        episodes: The dataset.
        normalizer: Fitted to it.
        discount: Of the rewards.
        cost_discount: Of the costs.
        device: Where the data live.
    """

    def __init__(
        self,
        episodes: Episodes,
        normalizer: Normalizer,
        *,
        discount: float,
        cost_discount: float,
        device: torch.device | str = "cpu",
    ):
        lengths = episodes.lengths
        act_dim = episodes.actions.shape[1]
        rows = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)
        normalizer = normalizer.to("cpu")
        observations = normalizer.normalize(
            torch.tensor(episodes.observations), slice(act_dim, None)
        )
        actions = normalizer.normalize(torch.tensor(episodes.actions), slice(0, act_dim))
        last_steps = np.cumsum(lengths) - 1
        terminated = np.zeros(lengths.sum(), np.float32)
        terminated[last_steps] = episodes.terminated
        self.discount, self.cost_discount = discount, cost_discount
        self.episode = torch.tensor(np.repeat(np.arange(len(lengths)), lengths), device=device)
        self.obs, self.next_obs, self.actions = (
            tensor.to(device) for tensor in (observations[rows], observations[rows + 1], actions)
        )
        self.rewards, self.costs, self.terminated = (
            torch.tensor(array, dtype=torch.float32, device=device)
            for array in (episodes.rewards, episodes.costs, terminated)
        )
        self._last_step = torch.tensor(np.repeat(last_steps, lengths), device=device)

    def __len__(self) -> int:
        return len(self.obs)

    def steps_left(self, rows: Tensor) -> Tensor:
        """Steps up to the end of the recorded episode, this one included; `(N,)`."""
        return self._last_step[rows] - rows + 1

    def get(self, starts: Tensor, num_steps: Tensor, longest: int) -> Backup:
        """Pieces from the transitions `starts` `(N,)`, cut at the ends of their episodes.

        Args:
            starts: Indices of transitions.
            num_steps: `(N,)`, steps of each; at least 1.
            longest: No piece has more steps. (To ask the tensor, one would wait for a GPU.)
        """
        num_steps = torch.minimum(num_steps.long(), self.steps_left(starts))
        offsets = torch.arange(longest, device=starts.device)
        inside = offsets < num_steps[:, None]
        steps = torch.minimum(starts[:, None] + offsets, self._last_step[starts][:, None])
        last = starts + num_steps - 1
        return Backup(
            obs=self.obs[starts],
            actions=self.actions[starts],
            returns=(self.rewards[steps] * inside * self.discount**offsets).sum(dim=1),
            costs=(self.costs[steps] * inside * self.cost_discount**offsets).sum(dim=1),
            next_obs=self.next_obs[last],
            survival=1.0 - self.terminated[last],
            num_steps=num_steps.to(torch.float32),
        )
