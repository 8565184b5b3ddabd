"""An unconstrained Stable-Baselines3 SAC that can be killed at any moment and continued.

Everything is saved at an episode boundary, after the last gradient step of that episode. Together
with seeds of their own for every episode, this makes an interrupted run equal to an uninterrupted
one, transition by transition.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from safe_diffusion_agent.checkpoint import write_atomically
from safe_diffusion_agent.errors import CheckpointError

# Hyperparameters that differ from Stable-Baselines3's defaults, with their source.
SAC_SETTINGS: dict[str, dict[str, Any]] = {
    # rl-baselines3-zoo, sac.yml, Pendulum-v1; also the data script of TREBI's authors.
    "safe/Pendulum-v0": {"learning_rate": 1e-3},
}

Progress = Callable[..., None]
Episode = dict[str, np.ndarray]


def episode_seed(seed: int, episode: int) -> int:
    """Seed of one episode of a collection."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


class EpisodeRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Records whole episodes exactly as the learner sees them, and seeds each one.

    Args:
        env: Environment with `info["cost"]`.
        seed: Episode k starts from `episode_seed(seed, k)`.
        num_finished: Index of the first episode.

    Attributes:
        finished: Recorded episodes: `observations` (T + 1, O), `actions` (T, A) in environment
            units, and `rewards`, `costs`, `terminations`, `truncations`, all (T,).
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int, num_finished: int = 0):
        super().__init__(env)
        self.num_finished = num_finished
        self.finished: list[Episode] = []
        self._seed = seed
        self._current: dict[str, list[Any]] = {}

    @property
    def between_episodes(self) -> bool:
        """Whether the current episode has no step yet."""
        return not self._current.get("actions")

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts recording the next episode; a seed given by the caller is replaced."""
        kwargs["seed"] = episode_seed(self._seed, self.num_finished)
        observation, info = self.env.reset(**kwargs)
        names = ("actions", "rewards", "costs", "terminations", "truncations")
        self._current = {"observations": [observation]} | {name: [] for name in names}
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and records; a finished episode is appended to `finished`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        transition = {
            "observations": observation,
            "actions": np.array(action),
            "rewards": float(reward),
            "costs": float(info["cost"]),
            "terminations": bool(terminated),
            "truncations": bool(truncated),
        }
        for name, value in transition.items():
            self._current[name].append(value)
        if terminated or truncated:
            self.finished.append({name: np.array(value) for name, value in self._current.items()})
            self.num_finished += 1
        return observation, reward, terminated, truncated, info


class SacCollector:
    """SAC, its recorded environment, and the folder that both are continued from.

    Files `episodes-<index of the first>.npz` hold finished episodes and are written once.
    `state.pt` holds the learner and the number of episodes that belong to it; episode files beyond
    that number come from a run that was killed between the two writes, and are collected again.

    Args:
        env_id: Task with `info["cost"]`.
        num_steps: Environment steps in all; also the size of the replay buffer, which thus keeps
            everything.
        seed: Fixes the run, on one machine.
        checkpoint_interval: Steps between checkpoints, rounded up to whole episodes.
        state_dir: Where the files are.

    Raises:
        CheckpointError: The folder belongs to a run with other arguments.
    """

    def __init__(
        self, env_id: str, num_steps: int, seed: int, checkpoint_interval: int, state_dir: Path
    ):
        self.num_steps = num_steps
        self.checkpoint_interval = checkpoint_interval
        self._identity: dict[str, Any] = {"env_id": env_id, "num_steps": num_steps, "seed": seed}
        self._dir = state_dir
        self.env = EpisodeRecorder(gym.make(env_id), seed)
        self.model = SAC(
            "MlpPolicy",
            self.env,
            buffer_size=num_steps,
            seed=seed,
            device="cpu",
            **SAC_SETTINGS.get(env_id, {}),
        )
        self._num_saved = 0
        if (state_dir / "state.pt").exists():
            self._restore()

    def run(self, progress: Progress | None = None) -> None:
        """Trains up to `num_steps`, saving on the way and at the end.

        Args:
            progress: Called at every step as `progress(done, total, episode_return=...,
                episode_cost=...)`, with the values of the last finished episode.
        """
        remaining = self.num_steps - self.model.num_timesteps
        if remaining > 0:
            callback = _SaveBetweenEpisodes(self, progress)
            self.model.learn(remaining, callback=callback, reset_num_timesteps=False)
            self.save()

    def episodes(self) -> Iterator[Episode]:
        """Every saved episode, in the order of collection."""
        count = 0
        while count < self._num_saved:
            with np.load(self._dir / f"episodes-{count:06d}.npz", allow_pickle=False) as arrays:
                names = [name.split("/") for name in arrays.files]
                indices = sorted({int(index) for index, _ in names})
                for index in indices:
                    yield {key: arrays[f"{index}/{key}"] for i, key in names if int(i) == index}
            count += len(indices)

    def evaluate_policy(self, num_episodes: int) -> dict[str, Any]:
        """Mean return and cost of the current policy, acting deterministically."""
        # The seeds are not those of the training episodes.
        recorder = EpisodeRecorder(self.env.env, self._identity["seed"] + 1_000_000)
        for _ in range(num_episodes):
            observation, _ = recorder.reset()
            done = False
            while not done:
                action, _ = self.model.predict(observation, deterministic=True)
                observation, _, terminated, truncated, _ = recorder.step(action)
                done = terminated or truncated
        return {
            "name": "SAC, final policy, deterministic",
            "num_episodes": num_episodes,
            "mean_return": float(np.mean([e["rewards"].sum() for e in recorder.finished])),
            "mean_cost": float(np.mean([e["costs"].sum() for e in recorder.finished])),
        }

    def save(self) -> None:
        """Writes the episodes finished since the last save, then the learner."""
        if self.env.finished:
            arrays = {
                f"{index}/{name}": value
                for index, episode in enumerate(self.env.finished)
                for name, value in episode.items()
            }
            path = self._dir / f"episodes-{self._num_saved:06d}.npz"
            write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
            self._num_saved += len(self.env.finished)
            self.env.finished = []
        state = {
            "identity": json.dumps(self._identity),
            "num_episodes": self._num_saved,
            "num_timesteps": self.model.num_timesteps,
            "num_updates": self.model._n_updates,
            "parameters": self.model.get_parameters(),
            "log_ent_coef": self.model.log_ent_coef,
            "torch_rng": torch.get_rng_state(),
            "numpy_rng": json.dumps(_numpy_rng_state()),
            "action_rng": json.dumps(self.model.action_space.np_random.bit_generator.state),
        }
        write_atomically(self._dir / "state.pt", lambda file: torch.save(state, file))

    def _restore(self) -> None:
        state = torch.load(self._dir / "state.pt", weights_only=True)
        identity = json.loads(state["identity"])
        if identity != self._identity:
            raise CheckpointError(
                f"{self._dir} belongs to a collection with {identity}, not {self._identity}. "
                "Choose another folder, or delete it to start again."
            )
        self._num_saved = self.env.num_finished = state["num_episodes"]
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


class _SaveBetweenEpisodes(BaseCallback):
    def __init__(self, collector: SacCollector, progress: Progress | None):
        super().__init__()
        self._collector = collector
        self._progress = progress
        self._saved_at = collector.model.num_timesteps
        self._last_episode: dict[str, float] = {}

    def _on_rollout_start(self) -> None:
        # The gradient step that follows a transition is done when the next rollout starts.
        due = self.num_timesteps - self._saved_at >= self._collector.checkpoint_interval
        if due and self._collector.env.between_episodes:
            self._collector.save()
            self._saved_at = self.num_timesteps

    def _on_step(self) -> bool:
        if self._progress is not None:
            if self.locals["dones"][0]:
                episode = self._collector.env.finished[-1]
                self._last_episode = {
                    "episode_return": float(episode["rewards"].sum()),
                    "episode_cost": float(episode["costs"].sum()),
                }
            self._progress(self.num_timesteps, self._collector.num_steps, **self._last_episode)
        return True


def _numpy_rng_state() -> list[Any]:
    # Stable-Baselines3 samples its replay buffer with the global generator.
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [name, np.asarray(keys).tolist(), *rest]


def _set_numpy_rng_state(state: list[Any]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
