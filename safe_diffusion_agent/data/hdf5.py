"""Imports HDF5 files in the layout of DSRL and D4RL from disk, as Minari datasets with costs.

Both hold flat arrays `observations`, `actions`, `rewards`, `terminals`, `timeouts` and, in their
newer files, `next_observations`. DSRL adds `costs`. D4RL's MuJoCo files have none, but the state of
the simulator under `infos/qpos`, from which the speed follows.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.episodes import CostFunction
from safe_diffusion_agent.errors import DatasetError

REQUIRED = ("observations", "actions", "rewards", "terminals", "timeouts")


def import_hdf5(
    path: str | os.PathLike[str],
    dataset_id: str,
    *,
    env_id: str | None = None,
    cost_key: str = "costs",
    cost_fn: CostFunction | None = None,
    cost_discount: float = 1.0,
    step_seconds: float | None = None,
) -> str:
    """Writes the whole episodes of a DSRL or D4RL file as a Minari dataset.

    An episode ends where `terminals` or `timeouts` is set; what follows the last end is left out.
    Without `next_observations`, the last step of each episode is left out too: what it led to is
    not in the file.

    Args:
        path: The file.
        dataset_id: Minari id to write.
        env_id: Gymnasium id of the environment it comes from, if there is one here. Its time limit
            is that of the dataset, also where every episode of the file ends before.
        cost_key: Name of the costs in the file.
        cost_fn: Computes the costs instead, from all transitions at once: `(N, O)` observations,
            `(N, A)` actions, `(N, O)` next observations, and a dict of what the file has under
            `infos/`, plus `"x_velocity"` where there are positions and `step_seconds`.
        cost_discount: gamma_c to store with the dataset.
        step_seconds: Duration of a step, for `"x_velocity"`: (x' - x) / step_seconds.

    Returns:
        `dataset_id`.

    Raises:
        DatasetError: The file cannot be read or lacks something, or its arrays do not fit together.
    """
    with _opened(path) as file:
        missing = [name for name in REQUIRED if name not in file]
        if cost_fn is None and cost_key not in file:
            missing.append(cost_key)
        if missing:
            raise DatasetError(
                f"{path} has no {', '.join(missing)} (it has {', '.join(file)}). "
                "Name its costs by cost_key, or give a cost_fn."
            )
        arrays = {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}
        infos = {name: array[()] for name, array in file.get("infos", {}).items()}
    lengths = {name: len(arrays[name]) for name in REQUIRED}
    if len(set(lengths.values())) != 1:
        raise DatasetError(f"The arrays of {path} have different lengths: {lengths}.")
    arrays["next_observations"], whole = _next_observations(arrays)
    if cost_fn is not None:
        if "qpos" in infos and step_seconds is not None:
            infos["x_velocity"] = _x_velocity(infos["qpos"][:, 0], _ends(arrays), step_seconds)
        transitions = (arrays[name] for name in ("observations", "actions", "next_observations"))
        try:
            arrays[cost_key] = np.asarray(cost_fn(*transitions, infos), np.float64)
        except KeyError as error:
            raise DatasetError(
                f"The cost function needs the info {error}, which {path} does not have (infos "
                f"there: {', '.join(infos) or 'none'}). A speed needs positions, infos/qpos, and "
                "step_seconds."
            ) from error
    longest = max((len(e["rewards"]) for e in _episodes(arrays, cost_key, whole)), default=0)
    if longest == 0:
        raise DatasetError(
            f"{path} has no whole episode: its terminals or timeouts should be set where one ends."
        )
    write_dataset(
        dataset_id,
        env_id,
        _episodes(arrays, cost_key, whole),
        {
            "algorithm": f"imported from {Path(path).name}",
            "cost_key": "infos/cost",
            "cost_discount": cost_discount,
            "max_episode_steps": max(longest, _time_limit(env_id)),
        },
        spaces=None if env_id is not None else _spaces(arrays),
    )
    return dataset_id


def _time_limit(env_id: str | None) -> int:
    """Returns the time limit of an environment; 0 without an environment or a limit."""
    return 0 if env_id is None else gym.spec(env_id).max_episode_steps or 0


def _opened(path: str | os.PathLike[str]) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} should be an HDF5 file that can be read: {error}.") from error


def _ends(arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    ends: npt.NDArray[np.bool_] = np.logical_or(arrays["terminals"], arrays["timeouts"])
    return ends


def _next_observations(arrays: dict[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], bool]:
    """Observations after each step, and whether that of an episode's last step is known."""
    if "next_observations" in arrays:
        return arrays["next_observations"], True
    return np.concatenate([arrays["observations"][1:], arrays["observations"][-1:]]), False


def _x_velocity(
    x: npt.NDArray[Any], ends: npt.NDArray[np.bool_], step_seconds: float
) -> npt.NDArray[np.float64]:
    """Returns the speed of each step; the last step of an episode repeats the one before it."""
    velocity = np.append(np.diff(x), 0.0) / step_seconds
    last = np.flatnonzero(ends)
    velocity[last] = velocity[np.maximum(last - 1, 0)]
    return velocity


def _episodes(
    arrays: dict[str, npt.NDArray[Any]], cost_key: str, whole: bool
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    first = 0
    for end in np.flatnonzero(_ends(arrays)):
        steps = slice(first, int(end) + 1 if whole else int(end))
        first = int(end) + 1
        num_steps = steps.stop - steps.start
        if num_steps == 0:
            continue
        terminated = bool(arrays["terminals"][end]) and whole
        last = np.arange(num_steps) == num_steps - 1
        final = arrays["next_observations"][steps.stop - 1 : steps.stop]
        yield {
            "observations": np.concatenate([arrays["observations"][steps], final]),
            "actions": arrays["actions"][steps],
            "rewards": arrays["rewards"][steps].astype(np.float64),
            "costs": arrays[cost_key][steps].astype(np.float64),
            "terminations": last & terminated,
            "truncations": last & (not terminated),
        }


def _spaces(arrays: dict[str, npt.NDArray[Any]]) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Returns unbounded observations, and actions in [-1, 1] or the wider range of the data."""
    observations, actions = arrays["observations"], arrays["actions"]
    bound = np.maximum(np.abs(actions).max(axis=0), 1.0).astype(np.float32)
    return (
        gym.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32),
        gym.spaces.Box(-bound, bound, dtype=np.float32),
    )
