"""Writes Minari datasets with costs (HDF5: Arrow's writer is quadratic in the episodes)."""

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.storage import write_text


def write_dataset(
    dataset_id: str,
    env_id: str | None,
    episodes: Iterable[dict[str, np.ndarray]],
    metadata: dict[str, Any],
    *,
    spaces: tuple[gym.Space[Any], gym.Space[Any]] | None = None,
) -> None:
    """Writes episodes as a Minari dataset (HDF5), replacing one of the same id.

    The dataset is written into a hidden folder first: under its id it is whole or absent.

    Args:
        dataset_id: Minari id.
        env_id: Gymnasium id of the environment that was acted in, or None if there is none here.
        episodes: As `EpisodeRecorder` records them; consumed one by one.
        metadata: JSON values to store with it; must have `"cost_discount"`. The mean return and
            costs of an episode are added, as are each episode's to its own metadata.
        spaces: Observation and action space, if there is no environment to ask.
    """
    summaries: list[dict[str, float]] = []
    buffers = _buffers(episodes, metadata["cost_discount"], summaries)
    with _staging_root(dataset_id) as staging, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about authors and links that we leave out
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,  # type: ignore[arg-type]  # any iterable will do; one episode in memory
            env=env_id,
            observation_space=None if spaces is None else spaces[0],
            action_space=None if spaces is None else spaces[1],
            algorithm_name=str(metadata.get("algorithm", "unknown")),
        )
        dataset.storage.update_episode_metadata(summaries)
        means = {
            f"mean_episode_{name}": float(np.mean([summary[name] for summary in summaries]))
            for name in ("return", "cost", "discounted_cost")
        }
        dataset.storage.update_metadata(metadata | means)
        staged = staging / dataset_id
        path = staging.parent / dataset_id
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(staged, path)
    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)


def _buffers(
    episodes: Iterable[dict[str, np.ndarray]],
    cost_discount: float,
    summaries: list[dict[str, float]],
) -> Iterator[EpisodeBuffer]:
    """Returns episodes as Minari takes them; what each adds up to is appended to `summaries`."""
    for episode in episodes:
        costs = episode["costs"]
        summaries.append(
            {
                "return": float(episode["rewards"].sum()),
                "cost": float(costs.sum()),
                "discounted_cost": float(discounted_sum(costs, cost_discount)),
            }
        )
        yield EpisodeBuffer(
            **{k: v for k, v in episode.items() if k != "costs"},  # type: ignore[arg-type]
            infos={"cost": np.concatenate([[0.0], costs])},
        )


def update_metadata(dataset_id: str, changes: dict[str, Any]) -> None:
    """Adds JSON values to what is stored with a dataset, or replaces them, atomically."""
    path = get_dataset_path(dataset_id) / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    write_text(path, json.dumps(metadata | changes))


@contextmanager
def _staging_root(dataset_id: str) -> Iterator[Path]:
    """Makes Minari write to a hidden folder beside its datasets for a while."""
    staging = get_dataset_path() / f".writing-{dataset_id.replace('/', '-')}"
    shutil.rmtree(staging, ignore_errors=True)
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(staging)
    try:
        yield staging
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
        shutil.rmtree(staging, ignore_errors=True)
