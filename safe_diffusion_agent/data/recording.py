"""Recording of whole episodes, exactly as the one who acts sees them.

Episodes of a fixed policy are recorded round by round: in a round, each of many environments runs
one episode. A round depends on the policy, the seed and its number alone, so that whole rounds can
be kept and the others made again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.episodes import next_remaining_budget
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.storage import write_atomically

NUM_ENVS = 16

Progress = Callable[..., None]
Array = npt.NDArray[Any]
Policy = Callable[[Array], Array]

# `observations` (T + 1, O), `actions` (T, A) in environment units, and `rewards`, `costs`,
# `terminations`, `truncations`, all (T,).
Episode = dict[str, np.ndarray]


def episode_seed(seed: int, episode: int) -> int:
    """Returns the seed of one episode of a collection."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


class Transcript:
    """An episode while it is recorded.

    Args:
        observation: The first one, of the reset.
    """

    def __init__(self, observation: Any):
        names = ("actions", "rewards", "costs", "terminations", "truncations")
        self._columns: dict[str, list[Any]] = {"observations": [np.array(observation)]}
        self._columns |= {name: [] for name in names}

    def __len__(self) -> int:
        return len(self._columns["actions"])

    def add(
        self,
        action: Any,
        observation: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        info: Mapping[str, Any],
    ) -> None:
        """Adds a step: an action, and what the environment answered.

        Raises:
            DatasetError: The cost is missing, or a number is NaN or infinite. Nothing is added.
        """
        if "cost" not in info:
            raise DatasetError(
                f'Step {len(self)} of the episode has no info["cost"]: wrap the environment in '
                "safe_envs.CostSignal first."
            )
        step: dict[str, Any] = {
            "observations": np.array(observation),
            "actions": np.array(action),
            "rewards": float(reward),
            "costs": float(info["cost"]),
            "terminations": bool(terminated),
            "truncations": bool(truncated),
        }
        for name in ("costs", "rewards", "observations", "actions"):
            if not np.isfinite(step[name]).all():
                raise DatasetError(
                    f"The {name.removesuffix('s')} of a step should be finite. Received "
                    f"{step[name]} at step {len(self)} of the episode."
                )
        for name, value in step.items():
            self._columns[name].append(value)

    def cut(self) -> None:
        """Ends the episode where it is."""
        self._columns["truncations"][-1] = True

    def episode(self) -> Episode:
        """Returns what was recorded."""
        return {name: np.array(values) for name, values in self._columns.items()}


class EpisodeRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Records whole episodes and seeds each one.

    Args:
        env: Environment with `info["cost"]`.
        seed: Episode k starts from `episode_seed(seed, k)`.
        num_finished: Index of the first episode.

    Attributes:
        finished: Recorded episodes.
        num_finished: Index of the current episode.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int, num_finished: int = 0):
        super().__init__(env)
        self.num_finished = num_finished
        self.finished: list[Episode] = []
        self._seed = seed
        self._current: Transcript | None = None

    @property
    def between_episodes(self) -> bool:
        """Whether the current episode has no step yet."""
        return not self._current

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts recording the next episode; a seed given by the caller is replaced."""
        kwargs["seed"] = episode_seed(self._seed, self.num_finished)
        observation, info = self.env.reset(**kwargs)
        self._current = Transcript(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and records; a finished episode is appended to `finished`.

        Raises:
            DatasetError: The cost is missing, or a number is NaN or infinite.
        """
        assert self._current is not None
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._current.add(action, observation, reward, terminated, truncated, info)
        if terminated or truncated:
            self.finished.append(self._current.episode())
            self.num_finished += 1
        return observation, reward, terminated, truncated, info


def save_episodes(path: Path, episodes: Sequence[Episode]) -> None:
    """Writes episodes into one file, atomically."""
    arrays = {
        f"{index}/{name}": value
        for index, episode in enumerate(episodes)
        for name, value in episode.items()
    }
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_episodes(path: Path) -> Iterator[Episode]:
    """Reads the episodes of one file, in their order."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [name.split("/") for name in arrays.files]
        for index in sorted({int(index) for index, _ in names}):
            yield {name: arrays[f"{index}/{name}"] for i, name in names if int(i) == index}


def record_episodes(
    policy: Policy,
    env_id: str,
    num_steps: int,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> Iterator[Episode]:
    """Yields whole episodes of a policy until they hold `num_steps`.

    Args:
        policy: Maps observations `(n, O)` to actions `(n, A)`. If it is stochastic, it draws from
            PyTorch's global generator.
        env_id: Task with `info["cost"]`.
        num_steps: At least so many steps; the last episode is not cut.
        seed: Fixes the episodes.
        folder: Where finished rounds are kept, one file each.
        progress: Called after every round as `progress(done, total)` with steps.
    """
    done = round_index = 0
    while done < num_steps:
        path = folder / f"round-{round_index:06d}.npz"
        if not path.exists():
            save_episodes(path, _round(policy, env_id, seed, round_index))
        for episode in read_episodes(path):
            if done < num_steps:
                done += len(episode["rewards"])
                yield episode
        round_index += 1
        if progress is not None:
            progress(min(done, num_steps), num_steps)


def _round(policy: Policy, env_id: str, seed: int, round_index: int) -> list[Episode]:
    first = round_index * NUM_ENVS
    envs = [EpisodeRecorder(gym.make(env_id), seed, first + index) for index in range(NUM_ENVS)]
    return record_round(lambda observations, *_: policy(observations), envs, [seed, round_index])


def record_round(
    act: Callable[[Array, Array, int], Array],
    envs: Sequence[EpisodeRecorder],
    seeds: Sequence[int],
    *,
    budget: float = math.inf,
    cost_discount: float = 1.0,
    tell: Callable[[int], object] = lambda _: None,
) -> list[Episode]:
    """Records one episode in each environment, in lockstep, and closes them.

    Args:
        act: Maps observations `(n, O)`, remaining budgets `(n,)` and the step that the episodes
            are at to actions `(n, A)`. What it draws from PyTorch's global generator is the same
            whenever the seeds are.
        envs: The environments.
        seeds: What the randomness of the actions is made from.
        budget: Of every episode, in cost units.
        cost_discount: gamma_c of the budget recursion.
        tell: Called after every step with the number of environments that took it.
    """
    observations = np.stack([env.reset()[0] for env in envs])
    budgets = np.full(len(envs), budget)
    running = list(range(len(envs)))
    step = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        while running:
            still_running = []
            actions = act(observations[running], budgets[running], step)
            for index, action in zip(running, actions, strict=True):
                env = envs[index]
                observations[index], _, terminated, truncated, info = env.step(action)
                budgets[index] = next_remaining_budget(budgets[index], info["cost"], cost_discount)
                if not (terminated or truncated):
                    still_running.append(index)
            tell(len(running))
            running, step = still_running, step + 1
    for env in envs:
        env.close()
    return [env.finished[0] for env in envs]
