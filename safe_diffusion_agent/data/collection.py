"""Collects offline data with SAC, as a Minari dataset with costs.

The qualities are those of the paper's data sets (Lin et al. 2023, Sec. 5.1 and App. B; those of
D4RL, Fu et al. 2020, for MuJoCo):

    replay         all that an unconstrained SAC saw in its training
    medium         episodes of the policy of that training that first reached a third of what its
                   final policy returns, counted from what random actions or none return
    medium-replay  all that SAC saw up to that policy
    expert         episodes of the final policy
    medium-expert  half medium, half expert

The reference code stores Stable-Baselines3's rescaled actions; here they are in environment units,
so that they can be replayed.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.data.facts import facts_of
from safe_diffusion_agent.data.recording import Episode, EpisodeRecorder, Progress, record_episodes
from safe_diffusion_agent.data.writing import is_made, write_dataset
from safe_diffusion_agent.errors import DatasetError, UnknownNameError
from safe_diffusion_agent.storage import provenance
from safe_envs import task_spec

if TYPE_CHECKING:  # Stable-Baselines3 is loaded where SAC is trained
    from safe_diffusion_agent.data.sac import SacTraining, Snapshot

ALGORITHMS = {
    "replay": "SAC (Stable-Baselines3), unconstrained: its whole replay buffer",
    "medium": "SAC (Stable-Baselines3), unconstrained, stopped at a third of its performance",
    "medium-replay": "SAC (Stable-Baselines3), unconstrained: its replay buffer up to medium",
    "expert": "SAC (Stable-Baselines3), unconstrained, fully trained",
    "medium-expert": "SAC (Stable-Baselines3), unconstrained: half medium, half expert",
}
QUALITIES = tuple(ALGORITHMS)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    Attributes:
        env_id: A task of `safe_envs`.
        quality: One of `QUALITIES`.
        num_steps: Steps of the dataset (the paper: 2e4 for replay on Pendulum and Reacher, 1e6 on
            Bullet tasks); for replay and medium-replay, steps of SAC. Episodes are stored whole: a
            last one that SAC did not finish is left out, one that is rolled out is finished.
        train_steps: Steps of SAC, with one gradient step each, for the qualities that are rolled
            out. None: as `num_steps`.
        seed: Fixes the whole collection, on one machine.
    """

    env_id: str
    quality: str = "replay"
    num_steps: int = 20_000
    train_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise UnknownNameError("quality", self.quality, QUALITIES)
        if self.quality.endswith("replay") and self.train_steps not in (None, self.num_steps):
            raise ValueError(f"{self.quality} is what SAC saw: leave out train_steps.")
        longest = task_spec(self.env_id).max_episode_steps
        for name in ("num_steps", "sac_steps"):
            if getattr(self, name) < longest:
                raise ValueError(
                    f"{name} should be at least one episode of {self.env_id} ({longest} steps). "
                    f"Received {getattr(self, name)}."
                )

    @property
    def sac_steps(self) -> int:
        """Steps of SAC."""
        return self.num_steps if self.train_steps is None else self.train_steps


def default_dataset_id(env_id: str, quality: str = "replay") -> str:
    """Returns a Minari id: `safe-envs/pendulum/sac-replay-v0`, `safe-envs/hopper/medium-v0`."""
    name = task_spec(env_id).id.removeprefix("safe/").rpartition("-")[0]
    return f"safe-envs/{name.lower()}/{'sac-replay' if quality == 'replay' else quality}-v0"


def paper_max_budget(env_id: str, quality: str) -> float | None:
    """Returns the maximum budget of the paper's dataset (Table 2), or None if it has none."""
    spec = task_spec(env_id)
    main_quality = "medium-replay" if spec.other_max_budgets else "replay"
    return ({main_quality: spec.max_budget} | dict(spec.other_max_budgets)).get(quality)


def default_state_dir(config: CollectConfig) -> Path:
    """Returns the folder of a collection; qualities of one training share it."""
    name = default_dataset_id(config.env_id).split("/")[1]
    return Path("runs") / "collections" / f"{name}-{config.sac_steps}-seed{config.seed}"


def collect(
    config: CollectConfig,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    dataset_id: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Trains SAC without a constraint and stores what the quality asks for as a Minari dataset.

    A dataset that the same config already made is kept, and an interrupted collection continues
    from its last checkpoint to the same dataset.

    Args:
        config: What to collect.
        state_dir: Folder for what is needed to continue after an interruption: the training (its
            episodes and snapshots of its policy) and the rolled out episodes. None takes
            `default_state_dir`. Its files are for this machine only.
        dataset_id: Minari id. None takes `default_dataset_id`.
        overwrite: Replaces a dataset of that id that something else made.
        progress: Called as `progress(done, total, **values)`, in steps.

    Returns:
        The id of the dataset.

    Raises:
        DatasetError: The id is taken by a dataset that something else made.
        CheckpointError: `state_dir` belongs to another collection.
    """
    from safe_diffusion_agent.data.sac import SacTraining

    spec = task_spec(config.env_id)
    dataset_id = dataset_id or default_dataset_id(config.env_id, config.quality)
    folder = default_state_dir(config) if state_dir is None else Path(state_dir)
    if is_collected(dataset_id, config, overwrite=overwrite):
        return dataset_id
    with one_thread():
        training = SacTraining(spec.id, config.sac_steps, config.seed, folder)
        training.run(progress)
        behavior = training.snapshots[-1]
        if config.quality in ("medium", "medium-replay"):
            behavior = medium_snapshot(training)
        episodes = _episodes(config, training, folder, progress)
        metadata = {
            "algorithm": ALGORITHMS[config.quality],
            "collect_config": asdict(config),
            **facts_of(training.env.env),
            "behavior_policy": asdict(behavior)
            | {"name": f"SAC after {behavior.step} steps, deterministic"},
            "snapshots": [asdict(snapshot) for snapshot in training.snapshots],
            "provenance": provenance(),
        } | _budgets(config)
        write_dataset(dataset_id, spec.id, episodes, metadata)
    return dataset_id


def medium_snapshot(training: "SacTraining") -> "Snapshot":
    """Returns the first policy that reached a third of the way from none to the final one.

    Raises:
        DatasetError: The final policy is no better than random actions, or none.
    """
    start = _return_without_policy(training.env_id, training.seed)
    final_return = training.snapshots[-1].mean_return
    if final_return <= start:
        raise DatasetError(
            f"After {training.num_steps} steps SAC returns {final_return:.1f}, random actions or "
            f"none {start:.1f}: there is nothing medium about it. Train longer."
        )
    target = start + (final_return - start) / 3
    return next(s for s in training.snapshots if s.mean_return >= target)


def _episodes(
    config: CollectConfig,
    training: "SacTraining",
    folder: Path,
    progress: Progress | None,
) -> Iterator[Episode]:
    if config.quality == "replay":
        return training.episodes()
    if config.quality == "medium-replay":
        return _until(training.episodes(), medium_snapshot(training).step)

    def rolled_out(snapshot: "Snapshot", num_steps: int) -> Iterator[Episode]:
        rounds = folder / f"rollouts-{snapshot.step:08d}"
        policy = training.load_policy(snapshot)
        return record_episodes(policy, config.env_id, num_steps, config.seed, rounds, progress)

    expert = training.snapshots[-1]
    if config.quality == "expert":
        return rolled_out(expert, config.num_steps)
    medium = medium_snapshot(training)
    if config.quality == "medium":
        return rolled_out(medium, config.num_steps)
    half = config.num_steps // 2
    return chain(rolled_out(medium, half), rolled_out(expert, half))


def _until(episodes: Iterator[Episode], num_steps: int) -> Iterator[Episode]:
    done = 0
    for episode in episodes:
        done += len(episode["rewards"])
        if done > num_steps:
            return
        yield episode


def _return_without_policy(env_id: str, seed: int, num_episodes: int = 5) -> float:
    """Returns the mean return of random actions or of zeros, whichever is more.

    Zeros, because to do nothing is far better than random actions where actions are charged for
    (HalfCheetah: about 0 against -280); an untrained network does as much.
    """
    from safe_diffusion_agent.data.sac import EVALUATION_SEED_OFFSET

    means = []
    for scale in (0.0, 1.0):
        recorder = EpisodeRecorder(gym.make(env_id), seed + 2 * EVALUATION_SEED_OFFSET)
        recorder.action_space.seed(seed)
        for _ in range(num_episodes):
            recorder.reset()
            done = False
            while not done:
                action = scale * recorder.action_space.sample()
                _, _, terminated, truncated, _ = recorder.step(action)
                done = terminated or truncated
        recorder.close()
        means.append(float(np.mean([e["rewards"].sum() for e in recorder.finished])))
    return max(means)


def _budgets(config: CollectConfig) -> dict[str, Any]:
    budget = paper_max_budget(config.env_id, config.quality)
    if budget is None:
        return {}
    source = "the paper's, for its own data (Table 2)"
    return {"max_budget": budget, "max_budget_source": source, "paper_max_budget": budget}


def is_collected(dataset_id: str, config: CollectConfig, *, overwrite: bool = False) -> bool:
    """Returns whether the config already made the dataset.

    Args:
        dataset_id: Minari id.
        config: What is to be collected.
        overwrite: A dataset that something else made may be replaced.

    Raises:
        DatasetError: The id is taken by a dataset that something else made.
    """
    return is_made(dataset_id, asdict(config), overwrite=overwrite)
