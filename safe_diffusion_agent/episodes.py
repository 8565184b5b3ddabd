"""Whole episodes in flat arrays, and the task that they are of.

They take nothing but numpy. What is known of the layout and of discounting is here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
FloatArray64 = npt.NDArray[np.float64]
CostFunction = Callable[..., Any]

RELATIVE_STD_FLOOR = 1e-6


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
    def first_steps(self) -> npt.NDArray[np.int64]:
        """Index of the first step of each episode, `(E,)`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def last_steps(self) -> npt.NDArray[np.int64]:
        """Index of the last step of each episode, `(E,)`."""
        return np.cumsum(self.lengths) - 1

    @property
    def episode_of_step(self) -> npt.NDArray[np.int64]:
        """Index of the episode of each step, `(N,)`."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Number of steps before each step in its episode, `(N,)`."""
        return np.arange(len(self.rewards)) - np.repeat(self.first_steps, self.lengths)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Row in `observations` that each step starts from, `(N,)`; it leads to the next row."""
        return np.arange(len(self.rewards)) + self.episode_of_step

    @property
    def final_rows(self) -> npt.NDArray[np.int64]:
        """Row in `observations` that each episode ends in, `(E,)`."""
        return np.cumsum(self.lengths + 1) - 1

    @property
    def episode_returns(self) -> npt.NDArray[np.float64]:
        """Undiscounted return of each episode, `(E,)`."""
        return np.add.reduceat(self.rewards, self.first_steps)

    @property
    def episode_costs(self) -> npt.NDArray[np.float64]:
        """Undiscounted cost of each episode, `(E,)`."""
        return np.add.reduceat(self.costs, self.first_steps)

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
        dataset_id: Minari id; None if the agent learns in an environment.
        dataset_fingerprint: Digest of the transitions, or None.
        costs_may_be_negative: Whether a step may cost less than nothing.
    """

    env_id: str | None
    obs_dim: int
    act_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int | None
    cost_discount: float
    max_budget: float
    dataset_id: str | None = None
    dataset_fingerprint: str | None = None
    costs_may_be_negative: bool = False

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
            costs_may_be_negative=bool(
                episodes.metadata.get("costs_may_be_negative", (episodes.costs < 0.0).any())
            ),
        )

    @classmethod
    def of_env(cls, env: Any, **facts: Any) -> "Task":
        """Returns the task of a Gymnasium environment, for agents that learn in it.

        Args:
            env: Its observation and action spaces are one-dimensional Boxes.
            **facts: What no environment tells: `cost_discount` and `max_budget`, which are 1 unless
                given, and `costs_may_be_negative`.

        Raises:
            ValueError: A space is another one.
        """
        spaces = {"observation": env.observation_space, "action": env.action_space}
        for name, space in spaces.items():
            if len(space.shape or ()) != 1 or not hasattr(space, "low"):
                raise ValueError(
                    f"The {name} space should be a one-dimensional Box. It is {space}."
                )
        spec = env.spec
        return cls(
            env_id=None if spec is None else spec.id,
            obs_dim=spaces["observation"].shape[0],
            act_dim=spaces["action"].shape[0],
            action_low=tuple(spaces["action"].low.tolist()),
            action_high=tuple(spaces["action"].high.tolist()),
            max_episode_steps=None if spec is None else spec.max_episode_steps,
            **({"cost_discount": 1.0, "max_budget": 1.0} | facts),
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Task":
        """Rebuilds a task from `dataclasses.asdict` that went through JSON."""
        bounds = {name: tuple(document[name]) for name in ("action_low", "action_high")}
        return cls(**(document | bounds))


def mean_and_std(values: npt.ArrayLike) -> tuple[FloatArray64, FloatArray64]:
    """Returns mean and standard deviation of each column of `values` `(N, D)`, `(D,)` each.

    A column that varies by less than `RELATIVE_STD_FLOOR`, relative to its mean, is taken for
    constant, and its deviation for 1: dividing by it would only amplify rounding errors.
    """
    array = np.asarray(values, np.float64)
    mean, std = array.mean(axis=0), array.std(axis=0)
    std[std <= RELATIVE_STD_FLOOR * np.maximum(np.abs(mean), 1.0)] = 1.0
    return mean, std


def discounted_sum(values: npt.NDArray[np.float64], discount: float) -> Any:
    """Returns the sum over steps of discount^t v_t.

    Args:
        values: `(T,)`, or `(T, n)` for n episodes.
        discount: In (0, 1].

    Returns:
        A number, or `(n,)`.
    """
    return discount ** np.arange(len(values)) @ values


def discounted_sums(
    values: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], discount: float
) -> npt.NDArray[np.float64]:
    """Returns the sum over each episode of flat `values` `(N,)`, discounted from its start."""
    first_steps = np.cumsum(lengths) - lengths
    position = np.arange(len(values)) - np.repeat(first_steps, lengths)
    return np.add.reduceat(values * discount**position, first_steps)


def values_to_go(
    values: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], discount: float
) -> npt.NDArray[np.float64]:
    """Returns the discounted sum of `values` `(N,)` from each step to its episode's end, `(N,)`."""
    result = np.empty_like(values)
    end = len(values)
    for length in lengths[::-1]:
        running = 0.0
        for step in range(end - 1, end - 1 - int(length), -1):
            running = values[step] + discount * running
            result[step] = running
        end -= int(length)
    return result


def spent_before(episodes: Episodes) -> npt.NDArray[np.float64]:
    """Returns the discounted cost of each episode before each of its steps, `(N,)`."""
    parts = []
    for first, length in zip(episodes.first_steps, episodes.lengths, strict=True):
        costs = episodes.costs[first : first + length]
        sums = np.cumsum(costs * episodes.cost_discount ** np.arange(length))
        parts.append(np.concatenate([[0.0], sums[:-1]]))
    return np.concatenate(parts)


def discounted_steps(num_steps: Any, discount: float) -> Any:
    """Returns 1 + g + ... + g^(k-1) for k steps: what a value of 1 per step sums up to.

    Args:
        num_steps: k, a number, array or tensor; may be infinite where the discount is below 1.
        discount: g, in (0, 1].
    """
    if discount == 1.0:
        return num_steps
    return (1.0 - discount**num_steps) / (1.0 - discount)


def next_remaining_budget(remaining_budget: Any, cost: Any, cost_discount: float) -> Any:
    """Returns (z - c) / gamma_c: what is left of a budget after a step (Alg. 1, line 15).

    Args:
        remaining_budget: z, a number, array or tensor, in cost units.
        cost: c, likewise.
        cost_discount: gamma_c, in (0, 1].
    """
    return (remaining_budget - cost) / cost_discount


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
