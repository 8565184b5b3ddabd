"""Collects offline data: an unconstrained SAC is trained, and all that it saw is the dataset.

This is the data of Lin et al. 2023, App. B: "we train an unconstrained SAC policy online until
convergence and take its replay buffer as the offline dataset". The reference code stores
Stable-Baselines3's rescaled actions; here they are in environment units, so that they can be
replayed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.data import write_dataset
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.provenance import provenance
from safe_diffusion_agent.sac import Progress, SacCollector
from safe_envs import task_spec


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    Attributes:
        env_id: A task of `safe_envs`.
        num_steps: Environment steps of SAC, with one gradient step each (the paper: 2e4 on
            Pendulum and Reacher). Only whole episodes are stored.
        seed: Fixes the whole collection, on one machine.
        num_reference_episodes: Episodes of the final policy, acting deterministically, that give
            the behavior policy's return and cost.
    """

    env_id: str
    num_steps: int = 20_000
    seed: int = 0
    num_reference_episodes: int = 20

    def __post_init__(self) -> None:
        max_episode_steps = task_spec(self.env_id).max_episode_steps
        if self.num_steps < max_episode_steps:
            raise ValueError(
                f"num_steps should be at least one episode of {self.env_id} "
                f"({max_episode_steps} steps). Received {self.num_steps}."
            )


def default_dataset_id(env_id: str) -> str:
    """Minari id of a task's replay dataset, such as `safe-envs/pendulum/sac-replay-v0`."""
    name = task_spec(env_id).id.removeprefix("safe/").rpartition("-")[0]
    return f"safe-envs/{name.lower()}/sac-replay-v0"


def collect(
    config: CollectConfig,
    *,
    state_dir: str | os.PathLike[str],
    dataset_id: str | None = None,
    overwrite: bool = False,
    checkpoint_interval: int = 1_000,
    progress: Progress | None = None,
) -> str:
    """Trains SAC without a constraint and stores every transition as a Minari dataset.

    A dataset that the same config already made is kept, and an interrupted collection continues
    from its last checkpoint to the same dataset.

    Args:
        config: What to collect.
        state_dir: Folder for what is needed to continue after an interruption. Its files are for
            this machine only.
        dataset_id: Minari id. None takes `default_dataset_id`.
        overwrite: Replaces a dataset of that id that something else made.
        checkpoint_interval: Steps between checkpoints, rounded up to whole episodes.
        progress: See `SacCollector.run`.

    Returns:
        The id of the dataset.

    Raises:
        DatasetError: The id is taken by a dataset that something else made.
        CheckpointError: `state_dir` belongs to another collection.
    """
    spec = task_spec(config.env_id)
    dataset_id = dataset_id or default_dataset_id(config.env_id)
    path = get_dataset_path(dataset_id)
    if path.exists():
        made_by = _stored_config(path)
        if made_by == asdict(config):
            return dataset_id
        if not overwrite:
            raise DatasetError(
                f"The dataset {dataset_id!r} exists and was made with {made_by}, not with "
                f"{asdict(config)}. Choose another dataset id, or overwrite it."
            )
    collector = SacCollector(
        spec.id, config.num_steps, config.seed, checkpoint_interval, Path(state_dir)
    )
    with _one_thread():
        collector.run(progress)
        behavior_policy = collector.evaluate_policy(config.num_reference_episodes)
    metadata = {
        "algorithm": "SAC (Stable-Baselines3), unconstrained; its whole replay buffer",
        "collect_config": asdict(config),
        "cost": spec.cost,
        "cost_function": (
            collector.env.get_wrapper_attr("cost_function")
            if collector.env.has_wrapper_attr("cost_function")
            else None
        ),
        "cost_key": "infos/cost",
        "cost_discount": spec.cost_discount,
        "max_budget": spec.max_budget,
        "max_episode_steps": spec.max_episode_steps,
        "behavior_policy": behavior_policy,
        "provenance": provenance(),
    }
    write_dataset(dataset_id, spec.id, collector.episodes(), metadata)
    return dataset_id


def _stored_config(path: Path) -> dict[str, Any] | None:
    """The config that made a dataset, or None if it was not made by `collect`."""
    try:
        metadata = json.loads((path / "data" / "metadata.json").read_text())
    except (OSError, ValueError):
        return None
    config: dict[str, Any] | None = metadata.get("collect_config")
    return config


@contextmanager
def _one_thread() -> Iterator[None]:
    """SAC's small networks are faster on one thread than on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
