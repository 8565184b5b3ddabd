"""Offline data: Minari datasets with costs, read into flat arrays and checked.

Minari stores costs under the step infos, of which there are T + 1 per episode because the reset
comes first: the cost of action t is at index t + 1 there. This module and `writing` hide
that; everywhere else in this package it is at index t.
"""

import difflib
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import numpy.typing as npt

from safe_diffusion_agent.episodes import CostFunction, Episodes, discounted_sums
from safe_diffusion_agent.errors import DatasetError


def load_episodes(
    dataset_id: str, *, cost_key: str = "infos/cost", cost_fn: CostFunction | None = None
) -> Episodes:
    """Reads and checks a local Minari dataset.

    Args:
        dataset_id: Minari id. Its observation and action spaces must be one-dimensional Boxes.
        cost_key: Where the costs are: `"infos/<name>"`.
        cost_fn: Computes the costs of a whole episode instead, from `(T, O)` observations, `(T, A)`
            actions, `(T, O)` next observations, and a dict of the steps' infos, `(T, ...)` each.

    Raises:
        DatasetError: There is no such dataset, it has no costs, other spaces, NaNs, or episodes
            whose parts do not fit together or that are not whole; the message says where.
    """
    try:
        dataset = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError, TypeError) as error:
        nearest = difflib.get_close_matches(dataset_id, minari.list_local_datasets(), 1, 0.0)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else " Collect one with `trebi collect`."
        raise DatasetError(f"There is no local Minari dataset {dataset_id!r}.{hint}") from error
    _check_spaces(dataset)
    parts: dict[str, list[Any]] = {"observations": [], "actions": [], "rewards": [], "costs": []}
    lengths, terminated = [], []
    for episode in dataset.iterate_episodes():
        costs = _episode_costs(episode, cost_key, cost_fn, dataset_id)
        _check_episode(episode, costs, dataset)
        parts["observations"].append(np.asarray(episode.observations, np.float32))
        parts["actions"].append(np.asarray(episode.actions, np.float32))
        parts["rewards"].append(np.asarray(episode.rewards, np.float64))
        parts["costs"].append(costs)
        lengths.append(len(episode.rewards))
        terminated.append(bool(episode.terminations[-1]))
    if not lengths:
        raise DatasetError(f"The dataset {dataset_id!r} has no episodes.")
    metadata = {k: v for k, v in dataset.storage.metadata.items() if not k.endswith("_space")}
    env_spec = dataset.env_spec
    arrays = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    cost_discount = float(metadata.get("cost_discount", 1.0))
    mean_cost = discounted_sums(arrays["costs"], np.array(lengths), cost_discount).mean()
    return Episodes(
        **arrays,
        lengths=np.array(lengths),
        terminated=np.array(terminated),
        action_low=np.asarray(dataset.action_space.low, np.float32),
        action_high=np.asarray(dataset.action_space.high, np.float32),
        dataset_id=dataset_id,
        env_id=env_spec.id if env_spec is not None else None,
        max_episode_steps=metadata.get(
            "max_episode_steps", env_spec.max_episode_steps if env_spec is not None else None
        ),
        cost_discount=cost_discount,
        max_budget=float(metadata.get("max_budget", mean_cost)),
        metadata=metadata,
    )


def _check_spaces(dataset: minari.MinariDataset) -> None:
    spaces = {"observation": dataset.observation_space, "action": dataset.action_space}
    for name, space in spaces.items():
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise DatasetError(
                f"The {name} space of {dataset.id!r} should be a one-dimensional Box, "
                f"but is {space}."
            )


def _episode_costs(
    episode: Any, cost_key: str, cost_fn: CostFunction | None, dataset_id: str
) -> npt.NDArray[np.float64]:
    """Returns the costs of one episode, `(T,)`, from its infos or by a function."""
    source, _, name = cost_key.partition("/")
    infos = episode.infos or {}
    if cost_fn is not None:
        observations = np.asarray(episode.observations)
        step_infos = {key: value[1:] for key, value in infos.items()}
        try:
            costs = cost_fn(observations[:-1], episode.actions, observations[1:], step_infos)
        except KeyError as error:
            raise DatasetError(
                f"The cost function needs the info {error}, which {dataset_id!r} does not have "
                f"(infos there: {', '.join(infos) or 'none'})."
            ) from error
        return np.asarray(costs, np.float64)
    if source != "infos" or name not in infos:
        available = ", ".join(f"infos/{key}" for key in infos) or "none"
        raise DatasetError(
            f"The dataset {dataset_id!r} has no costs at {cost_key!r} (infos there: {available}). "
            "Give the right cost_key, or a cost_fn that computes them."
        )
    return np.asarray(infos[name], np.float64)[1:]


def _check_episode(
    episode: Any, costs: npt.NDArray[np.float64], dataset: minari.MinariDataset
) -> None:
    num_steps = len(episode.rewards)
    where = f"Episode {episode.id} of {dataset.id!r}"
    found = {
        "observations": len(episode.observations) - 1,
        "actions": len(episode.actions),
        "costs": len(costs),
        "terminations": len(episode.terminations),
        "truncations": len(episode.truncations),
    }
    for name, count in found.items():
        if num_steps == 0 or count != num_steps:
            raise DatasetError(
                f"{where} has {num_steps} rewards, but its {name} are for {count} steps."
            )
    ends = np.flatnonzero(np.logical_or(episode.terminations, episode.truncations))
    if ends.tolist() != [num_steps - 1]:
        raise DatasetError(
            f"{where} should be terminated or truncated at its last step, {num_steps - 1}, and "
            f"nowhere before. It is at {', '.join(map(str, ends[:3])) or 'none'}."
        )
    checked = {
        "observations": (episode.observations, dataset.observation_space.shape),
        "actions": (episode.actions, dataset.action_space.shape),
        "rewards": (episode.rewards, ()),
        "costs": (costs, ()),
    }
    for name, (array, shape) in checked.items():
        array = np.asarray(array)
        if array.shape[1:] != shape:
            raise DatasetError(f"{where} has {name} of shape {array.shape[1:]}, not {shape}.")
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            step = int(np.argmin(finite))
            raise DatasetError(f"{where} has a NaN or infinite value in its {name} at step {step}.")
