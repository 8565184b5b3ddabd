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
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import write_text

ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")


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
        episodes: As `EpisodeRecorder` records them; consumed one by one. An episode may have a
            `seed`, and other single values, which are stored with it.
        metadata: JSON values to store with it; must have `"cost_discount"`. The mean return and
            costs of an episode are added, as are each episode's to its own metadata.
        spaces: Observation and action space, if there is no environment to ask.
    """
    summaries: list[dict[str, Any]] = []
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
    summaries: list[dict[str, Any]],
) -> Iterator[EpisodeBuffer]:
    """Returns episodes as Minari takes them; what each adds up to is appended to `summaries`."""
    for episode in episodes:
        costs = episode["costs"]
        labels = {k: v.item() for k, v in episode.items() if k not in (*ARRAYS, "costs", "seed")}
        summaries.append(
            {
                "return": float(episode["rewards"].sum()),
                "cost": float(costs.sum()),
                "discounted_cost": float(discounted_sum(costs, cost_discount)),
            }
            | labels
        )
        yield EpisodeBuffer(
            **{name: episode[name] for name in ARRAYS},  # type: ignore[arg-type]
            seed=int(episode["seed"]) if "seed" in episode else None,
            infos={"cost": np.concatenate([[0.0], costs])},
        )


def check_id(dataset_id: str) -> None:
    """Refuses what is no Minari id, before hours of work are stored under it.

    Raises:
        DatasetError: It is none.
    """
    try:
        parse_dataset_id(dataset_id)
    except ValueError:
        raise DatasetError(
            "The id of a dataset should be like 'mine/plant/first-v0': words of two or more "
            f"letters, digits, - and _, and a version. Received {dataset_id!r}."
        ) from None


def is_made(dataset_id: str, collect_config: dict[str, Any], *, overwrite: bool = False) -> bool:
    """Returns whether there is a dataset that was made with the settings.

    Args:
        dataset_id: Minari id.
        collect_config: JSON values: the settings that its metadata should have.
        overwrite: A dataset that something else made may be replaced.

    Raises:
        DatasetError: The id is taken by a dataset that something else made.
    """
    path = get_dataset_path(dataset_id)
    if not path.exists():
        return False
    made_with = stored_metadata(dataset_id).get("collect_config")
    if made_with != collect_config and not overwrite:
        raise DatasetError(
            f"The dataset {dataset_id!r} exists and was made with other settings "
            f"({difference(made_with or {}, collect_config)}). Choose another dataset id, or "
            "overwrite it."
        )
    return bool(made_with == collect_config)


def stored_metadata(dataset_id: str) -> dict[str, Any]:
    """Returns what is stored with a dataset; nothing, if it has none or is broken."""
    try:
        metadata = json.loads((get_dataset_path(dataset_id) / "data" / "metadata.json").read_text())
    except (OSError, ValueError):
        return {}
    return dict(metadata)


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
