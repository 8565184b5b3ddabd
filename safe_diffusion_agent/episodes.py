"""Whole episodes in flat arrays, and the task that they are of.

Everybody needs these; they take nothing but numpy. What is known of the layout (an episode of T
steps has T + 1 observations) and of discounting is here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
CostFunction = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Whole episodes, one after another in flat arrays. N steps and E episodes in all.

    Attributes:
        observations: `(N + E, O)` float32; an episode of T steps has T + 1 rows.
        actions: `(N, A)` float32, in environment units.
        rewards: `(N,)` float64.
        costs: `(N,)` float64; `costs[t]` is the cost of `actions[t]`.
        lengths: `(E,)` int64, steps per episode.
        terminated: `(E,)` bool, whether the episode ended by itself and not by its time limit.
        action_low: `(A,)` float32, bounds of the action space.
        action_high: `(A,)` float32.
        dataset_id: Minari id.
        env_id: Gymnasium id, or None if the dataset has no environment.
        max_episode_steps: Time limit of an episode, or None.
        cost_discount: gamma_c.
        max_budget: Largest budget of the evaluation protocol, in cost units: the one stored with
            the dataset, else the mean of `discounted_costs` (Lin et al. 2023, App. D).
        metadata: Everything else that is stored with the dataset.
    """

    observations: FloatArray
    actions: FloatArray
    rewards: npt.NDArray[np.float64]
    costs: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    action_low: FloatArray
    action_high: FloatArray
    dataset_id: str
    env_id: str | None
    max_episode_steps: int | None
    cost_discount: float
    max_budget: float
    metadata: dict[str, Any]

    @property
    def episode_returns(self) -> npt.NDArray[np.float64]:
        """Undiscounted return of each episode, `(E,)`."""
        return np.add.reduceat(self.rewards, self._first_steps)

    @property
    def episode_costs(self) -> npt.NDArray[np.float64]:
        """Undiscounted cost of each episode, `(E,)`."""
        return np.add.reduceat(self.costs, self._first_steps)

    @property
    def discounted_costs(self) -> npt.NDArray[np.float64]:
        """Cost of each episode, discounted by the task's gamma_c, `(E,)`."""
        return discounted_sums(self.costs, self.lengths, self.cost_discount)

    @property
    def fingerprint(self) -> str:
        """Digest of the transitions, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.observations, self.actions, self.rewards, self.costs, self.lengths):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _first_steps(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])


@dataclass(frozen=True, kw_only=True)
class Task:
    """The task an agent was trained for.

    Attributes:
        env_id: Gymnasium id, or None if the dataset has no environment.
        obs_dim: O.
        act_dim: A.
        action_low: Lower bounds of the action space, one per dimension.
        action_high: Upper bounds.
        max_episode_steps: Time limit of an episode, or None.
        cost_discount: gamma_c of the task's budgets.
        max_budget: The largest budget of the evaluation protocol, in cost units.
        dataset_id: Minari id.
        dataset_fingerprint: Digest of the transitions.
    """

    env_id: str | None
    obs_dim: int
    act_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int | None
    cost_discount: float
    max_budget: float
    dataset_id: str
    dataset_fingerprint: str

    @classmethod
    def of(cls, episodes: Episodes) -> "Task":
        """The task of a dataset."""
        return cls(
            env_id=episodes.env_id,
            obs_dim=episodes.observations.shape[1],
            act_dim=episodes.actions.shape[1],
            action_low=tuple(episodes.action_low.tolist()),
            action_high=tuple(episodes.action_high.tolist()),
            max_episode_steps=episodes.max_episode_steps,
            cost_discount=episodes.cost_discount,
            max_budget=episodes.max_budget,
            dataset_id=episodes.dataset_id,
            dataset_fingerprint=episodes.fingerprint,
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Task":
        """Rebuilds a task from `dataclasses.asdict` that went through JSON."""
        bounds = {name: tuple(document[name]) for name in ("action_low", "action_high")}
        return cls(**(document | bounds))


def discounted_sums(
    values: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], discount: float
) -> npt.NDArray[np.float64]:
    """Sum over each episode of `values` `(N,)`, discounted from its first step, `(E,)`."""
    first_steps = np.cumsum(lengths) - lengths
    position = np.arange(len(values)) - np.repeat(first_steps, lengths)
    return np.add.reduceat(values * discount**position, first_steps)


def values_to_go(
    values: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], discount: float
) -> npt.NDArray[np.float64]:
    """Discounted sum of `values` `(N,)` from each step to the end of its episode, `(N,)`."""
    result = np.empty_like(values)
    end = len(values)
    for length in lengths[::-1]:
        running = 0.0
        for step in range(end - 1, end - 1 - int(length), -1):
            running = values[step] + discount * running
            result[step] = running
        end -= int(length)
    return result


def spent_before(episodes: Episodes, first_steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Discounted cost of each episode before each of its steps, in one flat array."""
    parts = []
    for first, length in zip(first_steps, episodes.lengths, strict=True):
        costs = episodes.costs[first : first + length]
        sums = np.cumsum(costs * episodes.cost_discount ** np.arange(length))
        parts.append(np.concatenate([[0.0], sums[:-1]]))
    return np.concatenate(parts)


def is_held_out(num_episodes: int, share: float) -> npt.NDArray[np.bool_]:
    """Which episodes are held out, `(E,)`: every few, so that all phases of the data are met."""
    if share == 0.0:
        return np.zeros(num_episodes, np.bool_)
    every = max(2, round(1.0 / share))
    chosen: npt.NDArray[np.bool_] = np.arange(num_episodes) % every == every - 1
    return chosen


def select_episodes(episodes: Episodes, chosen: npt.NDArray[np.bool_]) -> Episodes:
    """The chosen ones, `(E,)` booleans."""
    steps = np.repeat(chosen, episodes.lengths)
    return replace(
        episodes,
        observations=episodes.observations[np.repeat(chosen, episodes.lengths + 1)],
        actions=episodes.actions[steps],
        rewards=episodes.rewards[steps],
        costs=episodes.costs[steps],
        lengths=episodes.lengths[chosen],
        terminated=episodes.terminated[chosen],
    )
