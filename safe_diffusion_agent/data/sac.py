"""An unconstrained Stable-Baselines3 SAC that can be killed at any moment and continued.

Everything is saved at an episode boundary, after the last gradient step of that episode. Together
with seeds of their own for every episode, this makes an interrupted run equal to an uninterrupted
one, transition by transition.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from safe_diffusion_agent.data.levels import MEASURED_EPISODES, MEASURED_SEED_OFFSET, measure
from safe_diffusion_agent.data.recording import (
    Episode,
    EpisodeRecorder,
    read_episodes,
    save_episodes,
)
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint, write_atomically

# What differs from Stable-Baselines3's defaults, with its source.
AUTHORS_SETTINGS = {"learning_rate": 1e-3}  # the data script of TREBI's authors, for all its tasks
ZOO_MUJOCO_SETTINGS = {"learning_starts": 10_000}  # rl-baselines3-zoo, sac.yml, MuJoCo tasks
SAC_SETTINGS: dict[str, dict[str, Any]] = {
    "safe/Pendulum-v0": AUTHORS_SETTINGS,  # rl-baselines3-zoo has the same for Pendulum-v1
    "safe/Reacher-v0": AUTHORS_SETTINGS,
    "safe/ReacherReachable-v0": AUTHORS_SETTINGS,
    "safe/CarCircle-v0": AUTHORS_SETTINGS,
    "safe/BallReach-v0": AUTHORS_SETTINGS,
    "safe/HalfCheetah-v0": ZOO_MUJOCO_SETTINGS,
    "safe/Hopper-v0": ZOO_MUJOCO_SETTINGS,
    "safe/Walker2d-v0": ZOO_MUJOCO_SETTINGS,
}

CHECKPOINT_INTERVAL = 1_000  # steps between checkpoints, rounded up to whole episodes
NUM_SNAPSHOTS = 20  # of the policy, in the course of a training of a given length
SNAPSHOT_INTERVAL = 5_000  # steps between snapshots of a training that ends at a return
SNAPSHOT_EPISODES = 5  # that each snapshot is evaluated on

Progress = Callable[..., None]


def sac_settings(env_id: str, num_steps: int) -> dict[str, Any]:
    """Hyperparameters that differ from Stable-Baselines3's, for a training of `num_steps`.

    The steps of random actions before the training starts are at most a tenth of it.
    """
    settings = dict(SAC_SETTINGS.get(env_id, {}))
    if "learning_starts" in settings:
        settings["learning_starts"] = min(settings["learning_starts"], num_steps // 10)
    return settings


@dataclass(frozen=True)
class Snapshot:
    """The policy at some step of its training, evaluated acting deterministically.

    Attributes:
        step: Environment steps that it was trained for.
        mean_return: Undiscounted.
        mean_cost: Discounted by gamma_c of the task that it is trained in.
        num_episodes: Evaluated episodes.
    """

    step: int
    mean_return: float
    mean_cost: float
    num_episodes: int


class SacTraining:
    """SAC, its recorded environment, and the folder that both are continued from.

    Files `episodes-<index of the first>.npz` hold finished episodes and are written once;
    `policy-<step>.safetensors` hold snapshots. `state.pt` holds the learner and the number of
    episodes that belong to it; episode files beyond that number come from a run that was killed
    between the two writes, and are collected again.

    Args:
        env_id: Task with `info["cost"]`.
        num_steps: Environment steps in all; also the size of the replay buffer, which thus keeps
            everything.
        seed: Fixes the run, on one machine.
        folder: Where the files are.
        target_return: The training ends with the first snapshot that returns so much, after
            `num_steps` at the latest. None: it ends after `num_steps`.

    Raises:
        CheckpointError: The folder belongs to a run with other arguments.
    """

    def __init__(
        self,
        env_id: str,
        num_steps: int,
        seed: int,
        folder: Path,
        target_return: float | None = None,
    ):
        self.num_steps, self.target_return = num_steps, target_return
        self.env_id, self.seed, self.folder = env_id, seed, folder
        settings = sac_settings(env_id, num_steps)
        self._identity = {"env_id": env_id, "num_steps": num_steps, "seed": seed} | settings
        if target_return is not None:
            self._identity["snapshot_interval"] = SNAPSHOT_INTERVAL
        self.env = EpisodeRecorder(gym.make(env_id), seed)
        self.model = SAC(
            "MlpPolicy", self.env, buffer_size=num_steps, seed=seed, device="cpu", **settings
        )
        self.snapshots: list[Snapshot] = []
        self._num_saved = 0
        if (folder / "state.pt").exists():
            self._restore()

    def run(self, progress: Progress | None = None) -> None:
        """Trains up to `num_steps`, saving on the way and at the end.

        Args:
            progress: Called at every step as `progress(done, total, episode_return=...,
                episode_cost=...)`, with the values of the last finished episode.
        """
        remaining = self.num_steps - self.model.num_timesteps
        if remaining > 0 and not self.has_reached_target:
            callback = _SaveBetweenEpisodes(self, progress)
            self.model.learn(remaining, callback=callback, reset_num_timesteps=False)
            if not self.has_reached_target:  # the last policy is measured better
                self.take_snapshot(MEASURED_EPISODES)
                self.save()

    @property
    def has_reached_target(self) -> bool:
        """Whether there is a return to be reached, and the last snapshot has it."""
        if self.target_return is None or not self.snapshots:
            return False
        return self.snapshots[-1].mean_return >= self.target_return

    @property
    def num_snapshots_due(self) -> int:
        """Snapshots that the steps so far should have."""
        if self.target_return is not None:
            return self.model.num_timesteps // SNAPSHOT_INTERVAL
        return self.model.num_timesteps * NUM_SNAPSHOTS // self.num_steps

    def episodes(self) -> Iterator[Episode]:
        """Returns every saved episode, in the order of collection."""
        count = 0
        while count < self._num_saved:
            for episode in read_episodes(self.folder / f"episodes-{count:06d}.npz"):
                count += 1
                yield episode

    def take_snapshot(self, num_episodes: int = SNAPSHOT_EPISODES) -> None:
        """Evaluates the current policy and keeps its weights."""
        measured = measure(
            lambda observation: self.model.predict(observation, deterministic=True)[0],
            self.env_id,
            self.seed + MEASURED_SEED_OFFSET,
            num_episodes,
        )
        snapshot = Snapshot(step=self.model.num_timesteps, **measured)
        save_checkpoint(
            self._policy_path(snapshot.step),
            "sac-policy",
            self.model.policy.actor.state_dict(),
            self._identity | asdict(snapshot),
        )
        self.snapshots.append(snapshot)

    def load_policy(
        self, snapshot: Snapshot, *, deterministic: bool = False
    ) -> Callable[[Any], Any]:
        """Returns the policy of a snapshot, from `(n, O)` or `(O,)` to actions alike."""
        tensors, _ = load_checkpoint(self._policy_path(snapshot.step), "sac-policy")
        model = SAC("MlpPolicy", gym.make(self.env_id), buffer_size=1, device="cpu")
        model.policy.actor.load_state_dict(tensors)
        return lambda observations: model.predict(observations, deterministic=deterministic)[0]

    def save(self) -> None:
        """Writes the episodes finished since the last save, then the learner."""
        if self.env.finished:
            save_episodes(self.folder / f"episodes-{self._num_saved:06d}.npz", self.env.finished)
            self._num_saved += len(self.env.finished)
            self.env.finished = []
        state = {
            "identity": json.dumps(self._identity),
            "snapshots": json.dumps([asdict(snapshot) for snapshot in self.snapshots]),
            "num_episodes": self._num_saved,
            "num_timesteps": self.model.num_timesteps,
            "num_updates": self.model._n_updates,
            "parameters": self.model.get_parameters(),
            "log_ent_coef": self.model.log_ent_coef,
            "torch_rng": torch.get_rng_state(),
            "numpy_rng": json.dumps(_numpy_rng_state()),
            "action_rng": json.dumps(self.model.action_space.np_random.bit_generator.state),
        }
        write_atomically(self.folder / "state.pt", lambda file: torch.save(state, file))

    def _restore(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True)
        identity = json.loads(state["identity"])
        if identity != self._identity:
            raise CheckpointError(
                f"{self.folder} belongs to a collection with {identity}, not {self._identity}. "
                "Choose another folder, or delete it to start again."
            )
        self._num_saved = self.env.num_finished = state["num_episodes"]
        self.snapshots = [Snapshot(**fields) for fields in json.loads(state["snapshots"])]
        for episode in self.episodes():
            self._refill_replay_buffer(episode)
        self.model.num_timesteps = state["num_timesteps"]
        self.model._n_updates = state["num_updates"]
        self.model.set_parameters(state["parameters"])
        with torch.no_grad():
            self.model.log_ent_coef.copy_(state["log_ent_coef"])  # type: ignore[union-attr]
        torch.set_rng_state(state["torch_rng"])
        _set_numpy_rng_state(json.loads(state["numpy_rng"]))
        self.model.action_space.np_random.bit_generator.state = json.loads(state["action_rng"])

    def _refill_replay_buffer(self, episode: Episode) -> None:
        assert self.model.replay_buffer is not None
        actions = self.model.policy.scale_action(episode["actions"])
        for t, action in enumerate(actions):
            terminated, truncated = episode["terminations"][t], episode["truncations"][t]
            self.model.replay_buffer.add(
                episode["observations"][t],
                episode["observations"][t + 1],
                action,
                episode["rewards"][t],
                terminated or truncated,
                [{"TimeLimit.truncated": bool(truncated and not terminated)}],
            )

    def _policy_path(self, step: int) -> Path:
        return self.folder / f"policy-{step:08d}.safetensors"


class _SaveBetweenEpisodes(BaseCallback):
    def __init__(self, training: SacTraining, progress: Progress | None):
        super().__init__()
        self._training = training
        self._progress = progress
        self._saved_at = training.model.num_timesteps
        self._last_episode: dict[str, float] = {}

    def _on_rollout_start(self) -> None:
        # The gradient step that follows a transition is done when the next rollout starts.
        training = self._training
        if not training.env.between_episodes:
            return
        if training.num_snapshots_due > len(training.snapshots):
            training.take_snapshot()
        if training.has_reached_target:
            training.save()  # here, between two episodes; the next step is not counted
        elif self.num_timesteps - self._saved_at >= CHECKPOINT_INTERVAL:
            training.save()
            self._saved_at = self.num_timesteps

    def _on_step(self) -> bool:
        if self._training.has_reached_target:
            return False
        if self._progress is not None:
            if self.locals["dones"][0]:
                episode = self._training.env.finished[-1]
                self._last_episode = {
                    "episode_return": float(episode["rewards"].sum()),
                    "episode_cost": float(episode["costs"].sum()),
                }
            self._progress(self.num_timesteps, self._training.num_steps, **self._last_episode)
        return True


def _numpy_rng_state() -> list[Any]:
    # Stable-Baselines3 samples its replay buffer with the global generator.
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [name, np.asarray(keys).tolist(), *rest]


def _set_numpy_rng_state(state: list[Any]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
