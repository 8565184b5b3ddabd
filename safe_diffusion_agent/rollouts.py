"""Episodes of a fixed policy, in many environments at once, resumable round by round.

In a round, every environment runs one episode; the round ends when all have ended. A round depends
on the policy, the seed and its number alone, so that whole rounds can be kept and the others made
again.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.recorder import Episode, EpisodeRecorder, read_episodes, save_episodes

NUM_ENVS = 16

Progress = Callable[..., None]
Policy = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def roll_out(
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
    observations = np.stack([env.reset()[0] for env in envs])
    running = list(range(NUM_ENVS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, round_index]).generate_state(1)[0]))
        while running:
            still_running = []
            for index, action in zip(running, policy(observations[running]), strict=True):
                observations[index], _, terminated, truncated, _ = envs[index].step(action)
                if not (terminated or truncated):
                    still_running.append(index)
            running = still_running
    for env in envs:
        env.close()
    return [env.finished[0] for env in envs]
