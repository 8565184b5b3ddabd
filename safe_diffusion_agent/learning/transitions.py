"""Transitions of a dataset, scaled for the networks: single ones, and pieces of a few steps.

Observations are normalised to zero mean and unit variance, actions to [-1, 1]; rewards and costs
stay in the task's units. An episode that its time limit ended goes on as far as values are
concerned: only a termination is an end.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, spent_before

# A dimension that varies by less than this, relative to its mean, is treated as constant.
RELATIVE_STD_FLOOR = 1e-6


class Normalizes(Protocol):
    """What a network sees of observations and actions."""

    def to(self, device: torch.device | str, /) -> "Normalizes":
        """The same on another device."""
        ...

    def observations(self, observations: Tensor, /) -> Tensor:
        """Environment units to the networks', `(*, O)`."""
        ...

    def actions(self, actions: Tensor, /) -> Tensor:
        """Environment units to the networks', `(*, A)`."""
        ...


@dataclass(frozen=True)
class Scaling:
    """What the networks see of observations and actions.

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
    def fit(cls, episodes: Episodes) -> "Scaling":
        """The scaling of a dataset."""
        mean = episodes.observations.mean(axis=0, dtype=np.float64)
        std = episodes.observations.std(axis=0, dtype=np.float64)
        std[std <= RELATIVE_STD_FLOOR * np.maximum(np.abs(mean), 1.0)] = 1.0
        low, high = episodes.action_low, episodes.action_high
        arrays = (mean, std, (low + high) / 2, (high - low) / 2)
        return cls(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def to(self, device: torch.device | str) -> "Scaling":
        """The same on another device."""
        return Scaling(*(t.to(device) for t in vars(self).values()))

    def observations(self, observations: Tensor) -> Tensor:
        """Environment units to the networks', `(*, O)`."""
        return (observations - self.mean) / self.std

    def actions(self, actions: Tensor) -> Tensor:
        """Environment units to the networks', `(*, A)`; clipped to the action space."""
        return ((actions - self.center) / self.half_range).clamp(-1.0, 1.0)

    def to_environment(self, actions: Tensor) -> Tensor:
        """Networks' actions, `(*, A)`, to environment units."""
        return actions * self.half_range + self.center


@dataclass(frozen=True)
class Batch:
    """Transitions; N of them.

    Attributes:
        obs: `(N, O)`, scaled.
        actions: `(N, A)`, scaled.
        rewards: `(N,)`.
        costs: `(N,)`, in cost units.
        next_obs: `(N, O)`, scaled.
        continues: `(N,)`, 0 where the episode terminated, else 1.
        spent: `(N,)`, what the episode had spent before, discounted: sum of gamma_c^k c_k, k < t.
        positions: `(N,)`, t.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    costs: Tensor
    next_obs: Tensor
    continues: Tensor
    spent: Tensor
    positions: Tensor


class Transitions:
    """All transitions of a dataset on one device.

    Args:
        episodes: The dataset.
        scaling: Its scaling.
        device: Where to keep the tensors.
    """

    def __init__(self, episodes: Episodes, scaling: Scaling, device: torch.device):
        num_episodes, lengths = len(episodes.lengths), episodes.lengths
        first_steps = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        episode_of = np.repeat(np.arange(num_episodes), lengths)
        steps = np.arange(len(episodes.rewards))
        positions = steps - first_steps[episode_of]
        continues = np.ones(len(steps))
        continues[(first_steps + lengths - 1)[episodes.terminated]] = 0.0
        rows = steps + episode_of  # an episode of T steps has T + 1 observations

        def tensor(values: npt.NDArray[np.generic]) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.num = len(steps)
        scaling = scaling.to(device)
        observations = scaling.observations(tensor(episodes.observations))
        self._all = Batch(
            obs=observations[rows],
            actions=scaling.actions(tensor(episodes.actions)),
            rewards=tensor(episodes.rewards),
            costs=tensor(episodes.costs),
            next_obs=observations[rows + 1],
            continues=tensor(continues),
            spent=tensor(spent_before(episodes, first_steps)),
            positions=tensor(positions),
        )

    def get(self, indices: Tensor) -> Batch:
        """The transitions of the given indices `(N,)`, as they follow one another in the data."""
        return Batch(*(tensor[indices] for tensor in vars(self._all).values()))

    def sample(self, num: int, generator: torch.Generator) -> Batch:
        """Random transitions, with replacement."""
        return self.get(
            torch.randint(self.num, (num,), generator=generator, device=generator.device)
        )


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
        normalizer: Normalizes,
        *,
        discount: float,
        cost_discount: float,
        device: torch.device | str = "cpu",
    ):
        lengths = episodes.lengths
        rows = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)
        normalizer = normalizer.to("cpu")
        observations = normalizer.observations(torch.tensor(episodes.observations))
        actions = normalizer.actions(torch.tensor(episodes.actions))
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
