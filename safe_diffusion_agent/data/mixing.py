"""Episodes of several policies, each with its share of the steps, that can be continued.

Each policy has a stream of episodes of its own, recorded round by round (see `recording`). The next
episode is taken from the stream that is furthest behind its share, so that every beginning of the
dataset has the shares that the whole has, as closely as whole episodes allow. Which streams there
are, their seeds and the finished rounds on disk are all there is to know: a collection that was
killed makes what is missing, and gives the same episodes.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from safe_diffusion_agent.data.recording import (
    Array,
    Episode,
    EpisodeRecorder,
    Progress,
    episode_seed,
    read_episodes,
    record_round,
    save_episodes,
)
from safe_diffusion_agent.errors import DatasetError

Act = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Someone who acts.

    Attributes:
        name: In messages.
        act: Maps observations `(n, O)`, remaining budgets and remaining steps `(n,)` to actions
            `(n, A)` in environment units. What is outside of the action space is clipped.
        share: Of the steps, relative to those of the others.
        noise: Standard deviation of the Gaussian noise that is added to every action, as a share
            of half the range of actions.
        budget: Of every episode, in cost units.
    """

    name: str
    act: Act
    share: float = 1.0
    noise: float = 0.0
    budget: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several policies in one environment.

    Attributes:
        sources: The policies.
        make_env: Makes the environment, with `info["cost"]`.
        max_episode_steps: Its time limit.
        cost_discount: gamma_c of its budgets.
        num_steps: At least so many steps in all; the last episode is not cut.
        seed: Fixes the episodes.
        num_envs: Environments in lockstep, at most.
        folder: Where finished rounds are kept, one file each.
    """

    sources: Sequence[Source]
    make_env: Callable[[], gym.Env[Any, Any]]
    max_episode_steps: int
    cost_discount: float
    num_steps: int
    seed: int
    num_envs: int
    folder: Path

    def episodes(self, progress: Progress | None = None) -> Iterator[Episode]:
        """Yields the episodes; what is not on disk is recorded first.

        Each has its `seed`, and as `policy` the index of its source.

        Args:
            progress: Called as `progress(done, total)`, in steps, while episodes are recorded.
        """
        count = _Count(self.num_steps, progress)
        streams = [self._stream(index, count) for index in range(len(self.sources))]
        shares = np.array([source.share for source in self.sources])
        steps = np.zeros(len(streams), np.int64)
        while steps.sum() < self.num_steps:
            behind = int(np.argmin(steps / shares))  # the first, of equals
            episode = next(streams[behind])
            steps[behind] += len(episode["rewards"])
            yield episode | {"policy": np.array(behind)}

    def _stream(self, index: int, count: "_Count") -> Iterator[Episode]:
        """Yields the episodes of one source, without end."""
        source, shares = self.sources[index], sum(source.share for source in self.sources)
        target = self.num_steps * source.share / shares
        num_episodes = steps = 0
        for round_index in itertools.count():
            missing = math.ceil((target - steps) / self.max_episode_steps)
            seeds = [  # of all sources, no two episodes start alike
                (num_episodes + k) * len(self.sources) + index
                for k in range(min(self.num_envs, max(1, missing)))
            ]
            path = self.folder / f"policy-{index}" / f"round-{round_index:06d}.npz"
            recorded_before = path.exists()
            if not recorded_before:
                envs = [EpisodeRecorder(self.make_env(), self.seed, seed) for seed in seeds]
                episodes = record_round(
                    _Actor(source, envs[0], self.max_episode_steps),
                    envs,
                    [self.seed, index, round_index],
                    budget=source.budget,
                    cost_discount=self.cost_discount,
                    tell=count.add,
                )
                save_episodes(path, episodes)
            for seed, episode in zip(seeds, read_episodes(path), strict=True):
                steps += len(episode["rewards"])
                if recorded_before:
                    count.add(len(episode["rewards"]))
                yield episode | {"seed": np.array(episode_seed(self.seed, seed))}
            num_episodes += len(seeds)


class _Count:
    """Counts the steps of all streams, and tells of them."""

    def __init__(self, total: int, progress: Progress | None):
        self._done, self._total, self._progress = 0, total, progress

    def add(self, steps: int) -> None:
        self._done = min(self._done + steps, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Actor:
    """Acts as a source does, with its noise, inside of the action space."""

    def __init__(self, source: Source, env: gym.Env[Any, Any], max_episode_steps: int):
        assert isinstance(env.action_space, gym.spaces.Box)
        self._source, self._space, self._limit = source, env.action_space, max_episode_steps

    def __call__(self, observations: Array, budgets: Array, step: int) -> Array:
        steps = np.full(len(observations), self._limit - step)
        actions = np.asarray(self._source.act(observations, budgets, steps))
        check_actions(self._source.name, actions, len(observations), self._space)
        low, high = self._space.low, self._space.high
        if self._source.noise:
            noise = torch.randn(actions.shape, dtype=torch.float64).numpy()
            actions = actions + self._source.noise * (high - low) / 2 * noise
        clipped: Array = np.clip(actions, low, high).astype(self._space.dtype)
        return clipped


def check_actions(name: str, actions: Array, num: int, space: gym.spaces.Box) -> None:
    """Refuses what is not an action for every observation.

    Args:
        name: Of the policy.
        actions: What it returned.
        num: How many observations it was given.
        space: The action space.

    Raises:
        DatasetError: The shape is another, or an action is not finite.
    """
    expected = (num, *space.shape)
    if actions.shape != expected:
        raise DatasetError(
            f"The policy {name} should map observations (n, O) to actions (n, A). For {num} "
            f"observations it returned the shape {actions.shape}, not {expected}. If it takes one "
            "observation: lambda observations: np.stack([policy(o) for o in observations])."
        )
    if not np.isfinite(actions).all():
        raise DatasetError(f"The actions of the policy {name} should be finite. Received {actions}")
