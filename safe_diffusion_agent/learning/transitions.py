"""Transitions of a dataset as networks see them: single ones, and n-step pieces of episodes.

Observations and actions are normalized; rewards and costs stay in the task's units. An episode that
its time limit ended goes on as far as values are concerned: only a termination is an end.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, mean_and_std, spent_before


class Normalizes(Protocol):
    """What networks see of observations and actions."""

    def to(self, device: torch.device | str, /) -> "Normalizes":
        """Returns the same on another device."""
        ...

    def observations(self, observations: Tensor, /) -> Tensor:
        """Maps observations `(*, O)` from environment units to the networks'."""
        ...

    def actions(self, actions: Tensor, /) -> Tensor:
        """Maps actions `(*, A)` from environment units to the networks'."""
        ...


@dataclass(frozen=True)
class UnitNormalizer:
    """Normalizes observations to zero mean and unit variance, and the action space to [-1, 1].

    Attributes:
        mean: `(O,)`, mean of the observations.
        std: `(O,)`, their standard deviation; 1 for constant dimensions.
        center: `(A,)`, middle of the action space.
        half_range: `(A,)`, half its width.
    """

    mean: Tensor
    std: Tensor
    center: Tensor
    half_range: Tensor

    @classmethod
    def fit(cls, episodes: Episodes) -> "UnitNormalizer":
        """Returns the normalizer of a dataset."""
        mean, std = mean_and_std(episodes.observations)
        low, high = episodes.action_low, episodes.action_high
        arrays = (mean, std, (low + high) / 2, (high - low) / 2)
        return cls(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def to(self, device: torch.device | str) -> "UnitNormalizer":
        """Returns the same on another device."""
        return UnitNormalizer(*(t.to(device) for t in vars(self).values()))

    def observations(self, observations: Tensor) -> Tensor:
        """Maps observations `(*, O)` from environment units to the networks'."""
        return (observations - self.mean) / self.std

    def actions(self, actions: Tensor) -> Tensor:
        """Maps actions `(*, A)` from environment units to the networks'; clips them."""
        return ((actions - self.center) / self.half_range).clamp(-1.0, 1.0)

    def to_environment(self, actions: Tensor) -> Tensor:
        """Maps the networks' actions `(*, A)` to environment units."""
        return actions * self.half_range + self.center


@dataclass(frozen=True)
class Batch:
    """N transitions.

    Attributes:
        obs: `(N, O)`, normalized.
        actions: `(N, A)`, normalized.
        rewards: `(N,)`.
        costs: `(N,)`, in cost units.
        next_obs: `(N, O)`, normalized.
        continues: `(N,)`, 0 where the episode terminated, else 1.
        is_last: `(N,)`, 1 at the last step of each episode, else 0.
        spent: `(N,)`, what the episode had spent before, discounted: sum of gamma_c^k c_k, k < t.
        positions: `(N,)`, t.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    costs: Tensor
    next_obs: Tensor
    continues: Tensor
    is_last: Tensor
    spent: Tensor
    positions: Tensor


@dataclass(frozen=True)
class NStepTarget:
    """From N states to states some steps later, whose values complete the sums.

    Attributes:
        obs: `(N, O)`, normalized.
        actions: `(N, A)`, normalized; the first ones.
        returns: `(N,)`, discounted sum of the rewards in between.
        costs: `(N,)`, discounted sum of the costs in between.
        next_obs: `(N, O)`, normalized.
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


class Transitions:
    """All N transitions of a dataset, on one device.

    Args:
        episodes: The dataset.
        normalizer: Fitted to it.
        device: Where the data live.

    Attributes:
        all: The transitions, one after the other.
        episode: `(N,)`, index of each one's episode.
    """

    def __init__(
        self, episodes: Episodes, normalizer: Normalizes, device: torch.device | str = "cpu"
    ):
        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        normalizer, rows = normalizer.to(device), episodes.rows
        observations = normalizer.observations(tensor(episodes.observations))
        continues, is_last = np.ones(len(rows)), np.zeros(len(rows))
        continues[episodes.last_steps[episodes.terminated]] = 0.0
        is_last[episodes.last_steps] = 1.0
        self.all = Batch(
            obs=observations[rows],
            actions=normalizer.actions(tensor(episodes.actions)),
            rewards=tensor(episodes.rewards),
            costs=tensor(episodes.costs),
            next_obs=observations[rows + 1],
            continues=tensor(continues),
            is_last=tensor(is_last),
            spent=tensor(spent_before(episodes)),
            positions=tensor(episodes.positions),
        )
        self.episode = torch.tensor(episodes.episode_of_step, device=device)
        last_steps = np.repeat(episodes.last_steps, episodes.lengths)
        self._last_step = torch.tensor(last_steps, device=device)

    def __len__(self) -> int:
        return len(self.episode)

    def get(self, indices: Tensor) -> Batch:
        """Returns the transitions of the given indices `(N,)`, which follow the data's order."""
        return Batch(*(tensor[indices] for tensor in vars(self.all).values()))

    def sample(self, num: int, generator: torch.Generator) -> Batch:
        """Draws transitions uniformly, with replacement."""
        shape = (num,)
        drawn = torch.randint(len(self), shape, generator=generator, device=generator.device)
        return self.get(drawn)

    def steps_left(self, rows: Tensor) -> Tensor:
        """Returns the steps up to the end of the recorded episode, this one included; `(N,)`."""
        return self._last_step[rows] - rows + 1

    def n_step(
        self,
        starts: Tensor,
        num_steps: Tensor,
        longest: int,
        *,
        discount: float,
        cost_discount: float,
    ) -> NStepTarget:
        """Returns what some steps from the transitions `starts` `(N,)` came to.

        Args:
            starts: Indices of transitions.
            num_steps: `(N,)`, at least 1; cut at the ends of the episodes.
            longest: The largest of `num_steps`. (To ask the tensor, one would wait for a GPU.)
            discount: Of the rewards.
            cost_discount: Of the costs.
        """
        num_steps = torch.minimum(num_steps.long(), self.steps_left(starts))
        offsets = torch.arange(longest, device=starts.device)
        inside = offsets < num_steps[:, None]
        steps = torch.minimum(starts[:, None] + offsets, self._last_step[starts][:, None])
        last = starts + num_steps - 1
        return NStepTarget(
            obs=self.all.obs[starts],
            actions=self.all.actions[starts],
            returns=(self.all.rewards[steps] * inside * discount**offsets).sum(dim=1),
            costs=(self.all.costs[steps] * inside * cost_discount**offsets).sum(dim=1),
            next_obs=self.all.next_obs[last],
            survival=self.all.continues[last],
            num_steps=num_steps.to(torch.float32),
        )
