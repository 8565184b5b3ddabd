"""How well policies do that datasets are collected with: from none, to medium, to an expert.

An expert is the last policy of our own SAC, or one from elsewhere, which our SAC is measured by.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.data.recording import EpisodeRecorder
from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.errors import DatasetError
from safe_envs import task_spec

if TYPE_CHECKING:  # Stable-Baselines3 is loaded where SAC is trained
    from safe_diffusion_agent.data.sac import SacTraining, Snapshot
    from safe_diffusion_agent.data.sb3_zip import ZipPolicy

Array = npt.NDArray[Any]
MEASURED_SEED_OFFSET = 1_000_000  # measured episodes never start like those of a dataset
MEASURED_EPISODES = 20  # of a policy that a dataset is collected with


@dataclass(frozen=True, kw_only=True)
class Expert:
    """A policy from elsewhere.

    Attributes:
        name: Of its file, and what it acted like.
        algorithm: What trained it.
        act: Draws actions `(n, A)` for observations `(n, O)`.
        mean_return: Undiscounted, acting deterministically.
        mean_cost: Discounted by the task's gamma_c.
        num_episodes: Measured episodes.
    """

    name: str
    algorithm: str
    act: Callable[[Array], Array]
    mean_return: float
    mean_cost: float
    num_episodes: int

    def values(self) -> dict[str, Any]:
        """Returns what a dataset says of it."""
        return {name: value for name, value in vars(self).items() if name != "act"}


def measure(
    act: Callable[[Array], Array], env_id: str, seed: int, num_episodes: int
) -> dict[str, Any]:
    """Lets a policy act, and returns the mean return, the mean cost, and the number of episodes.

    Args:
        act: Maps an observation `(O,)` to an action `(A,)`.
        env_id: Task; its gamma_c discounts the costs.
        seed: Of the first episode.
        num_episodes: How many.
    """
    recorder = EpisodeRecorder(gym.make(env_id), seed)
    for _ in range(num_episodes):
        observation, _ = recorder.reset()
        done = False
        while not done:
            observation, _, terminated, truncated, _ = recorder.step(act(observation))
            done = terminated or truncated
    recorder.close()
    discount = task_spec(env_id).cost_discount
    costs = [discounted_sum(np.array(e["costs"]), discount) for e in recorder.finished]
    return {
        "mean_return": float(np.mean([e["rewards"].sum() for e in recorder.finished])),
        "mean_cost": float(np.mean(costs)),
        "num_episodes": num_episodes,
    }


def expert_id(path: str) -> str:
    """Returns the name of an expert's file and the beginning of its SHA-256.

    Raises:
        DatasetError: There is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise DatasetError(
            f"The expert should be in {path}, and there is no such file. docs/data.md says where "
            "to get those of the zoo."
        )
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def read_expert(path: str, env_id: str) -> "ZipPolicy":
    """Reads a policy that Stable-Baselines3 saved.

    Raises:
        CheckpointError: There is no such file, or it holds no policy, or one for another robot.
    """
    from safe_diffusion_agent.data.sb3_zip import load_zip_policy

    env = gym.make(env_id)
    policy = load_zip_policy(Path(path), (env.observation_space, env.action_space))
    env.close()
    return policy


def load_expert(path: str, env_id: str, seed: int) -> Expert:
    """Reads a policy that Stable-Baselines3 saved, and measures it.

    Raises:
        DatasetError: There is no such file.
        CheckpointError: It holds no policy, or one for another robot.
    """
    name, policy = expert_id(path), read_expert(path, env_id)
    seed += MEASURED_SEED_OFFSET
    measured = measure(lambda o: policy.act(o, deterministic=True), env_id, seed, MEASURED_EPISODES)
    return Expert(
        name=name,
        algorithm=f"{policy.algorithm} from elsewhere",
        act=lambda observations: policy.act(observations, deterministic=False),
        **measured,
    )


def medium_return(env_id: str, seed: int, expert_return: float) -> float:
    """Returns a third of the way from the return without a policy to the expert's.

    Raises:
        DatasetError: The expert is no better than random actions, or none.
    """
    start = return_without_policy(env_id, seed)
    if expert_return <= start:
        raise DatasetError(
            f"The best policy returns {expert_return:.1f}, random actions or none {start:.1f}: "
            "there is nothing medium about it. Train longer, or take another expert."
        )
    return start + (expert_return - start) / 3


def medium_snapshot(training: "SacTraining") -> "Snapshot":
    """Returns the first policy of a training that has the medium return.

    Raises:
        DatasetError: There is none, or the expert is no better than random actions, or none.
    """
    target = training.target_return
    if target is None:
        last_return = training.snapshots[-1].mean_return
        target = medium_return(training.env_id, training.seed, last_return)
    for snapshot in training.snapshots:
        if snapshot.mean_return >= target:
            return snapshot
    raise DatasetError(
        f"After {training.num_steps} steps SAC returns "
        f"{training.snapshots[-1].mean_return:.1f}; a third of the expert is {target:.1f}. "
        "Train longer."
    )


def return_without_policy(env_id: str, seed: int, num_episodes: int = 5) -> float:
    """Returns the mean return of random actions or of zeros, whichever is more.

    Zeros, because to do nothing is far better than random actions where actions are charged for
    (HalfCheetah: about 0 against -280); an untrained network does as much.
    """
    space: Any = gym.make(env_id).action_space
    space.seed(seed)

    def act_at(scale: float) -> Callable[[Array], Array]:
        return lambda _: scale * space.sample()

    seed += 2 * MEASURED_SEED_OFFSET
    return max(
        float(measure(act_at(scale), env_id, seed, num_episodes)["mean_return"])
        for scale in (0.0, 1.0)
    )
