"""`Agent`: what every method has in common, seen from outside.

An agent acts on an observation and the budget that remains. It stores nothing about the episode:
the budget belongs to the caller, who may raise or cut it at any step.
"""

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.storage import FILE_NAME, agent_file, load_checkpoint, save_checkpoint

FEW_STATES = 8  # up to so many are acted on with `one_thread`, where networks are small

FloatArray = npt.NDArray[np.float32]
PredictState = tuple[npt.NDArray[Any], ...]


class Agent(ABC):
    """An agent that keeps a budget which it is given at every step.

    Args:
        task: What it was trained for.
        about: JSON values on its origin (command, versions, seed), kept in the checkpoint.
        device: `"auto"` takes a GPU if there is one.
        seed: Fixes the agent's random numbers.
    """

    method: ClassVar[str]
    config: Any  # its settings, a frozen dataclass with the name of a `preset`

    def __init__(
        self,
        task: Task,
        *,
        about: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
    ):
        self.task = task
        self.about = dict(about or {})
        self.device = resolve_device(device)
        self.seed = seed
        self.generator = self.new_generator()

    @property
    def cost_discount(self) -> float:
        """gamma_c of the remaining budgets that the agent expects."""
        return self.task.cost_discount

    @property
    def budget_scale(self) -> float:
        """What an evaluation multiplies budgets by at the start, for a gamma_c not the task's."""
        return 1.0

    @property
    def looks_at_time(self) -> bool:
        """Whether the actions depend on how much of the episode is left."""
        return False

    def for_budget(self, budget: float) -> "Agent":
        """The agent for episodes that start with this budget; most methods need no other.

        Args:
            budget: In cost units.
        """
        del budget
        return self

    @abstractmethod
    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """The next action.

        Args:
            obs: `(O,)`, or `(n, O)` for many states at once; environment units.
            remaining_budget: z_t, a number or `(n,)`, in cost units: what may still be spent, this
                step included. Negative if overspent; `math.inf` for no constraint.
            remaining_steps: Steps up to the time limit of the episode, this one included; a
                number or `(n,)`. If None, an agent that looks at the time acts as if the whole
                episode were still ahead, which makes it too careful; it warns.
            generator: Gives the random numbers, and may be on another device than the agent: one
                on the CPU gives them alike to agents on any. None goes on with the agent's own.

        Returns:
            `(A,)`, or `(n, A)`; environment units.

        Raises:
            ValueError: A shape is wrong, an observation is not finite, or a budget is NaN.
        """

    @abstractmethod
    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and JSON values that `_from_state` rebuilds the agent from."""

    @classmethod
    @abstractmethod
    def _from_state(
        cls,
        tensors: dict[str, torch.Tensor],
        document: dict[str, Any],
        settings: dict[str, Any],
        **common: Any,
    ) -> Self: ...

    def predict(
        self,
        observation: Any,
        state: PredictState | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[FloatArray, PredictState]:
        """Stable-Baselines3's `PolicyPredictor`, for `evaluate_policy` and callbacks.

        Args:
            observation: What `BudgetObservation` gives, as a Dict or flat; one or a batch.
            state: What the last call returned: the steps taken in each episode. None: no step yet.
            episode_start: `(n,)`, where True the step count starts again.
            deterministic: Takes the same random numbers in every call, so that the action depends
                on the arguments alone.

        Returns:
            The actions, and the state for the next call.

        Raises:
            ValueError: There is no budget in the observation, or see `act`.
        """
        obs, remaining_budget, remaining_steps = self._split(observation)
        num_steps = np.zeros(len(np.atleast_2d(obs)), np.int64) if state is None else state[0]
        if episode_start is not None:
            num_steps = np.where(episode_start, 0, num_steps)
        limit = self.task.max_episode_steps
        if remaining_steps is None and limit is not None:
            remaining_steps = np.maximum(limit - num_steps, 1)
        generator = self.new_generator() if deterministic else None
        batch = np.atleast_2d(obs)
        actions = self.act(batch, remaining_budget, remaining_steps, generator=generator)
        return (actions[0] if obs.ndim == 1 else actions), (num_steps + 1,)

    def _check_inputs(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Observations `(n, O)`, budgets `(n,)` and steps `(n,)`, on the agent's device."""
        observations = np.asarray(obs, np.float32)
        dim, limit = self.task.obs_dim, self.task.max_episode_steps
        shape = observations.shape
        if len(shape) not in (1, 2) or shape[-1] != dim or shape[0] == 0:
            raise ValueError(f"obs should have shape ({dim},) or (n, {dim}). Received {shape}.")
        observations = np.atleast_2d(observations)
        if not np.isfinite(observations).all():
            row, column = np.argwhere(~np.isfinite(observations))[0]
            raise ValueError(
                f"obs should be finite. Received {observations[row, column]} at [{row}, {column}]."
            )
        budgets = _one_per_state("remaining_budget", remaining_budget, len(observations))
        if np.isnan(budgets).any():
            raise ValueError("remaining_budget should be a number, or math.inf. Received NaN.")
        if remaining_steps is None:
            if self.looks_at_time:
                warnings.warn(
                    "This agent looks at how much of the episode is left: give act() the "
                    'remaining_steps (BudgetObservation reports info["remaining_steps"]). Without '
                    "them it acts as if the whole episode were still ahead.",
                    stacklevel=4,
                )
            remaining_steps = limit or math.inf
        steps = _one_per_state("remaining_steps", remaining_steps, len(observations))
        if not ((steps >= 1) & (steps <= (limit or math.inf))).all():
            raise ValueError(
                f"remaining_steps should be from 1 to {limit or math.inf}. "
                f"Received {remaining_steps}."
            )
        return (
            torch.tensor(observations, device=self.device),
            torch.tensor(budgets, dtype=torch.float32, device=self.device),
            torch.tensor(steps, dtype=torch.float32, device=self.device),
        )

    def _split(self, observation: Any) -> tuple[npt.NDArray[Any], Any, Any]:
        """Observation, remaining budget and (where shown) remaining steps."""
        if isinstance(observation, Mapping) and "remaining_budget" in observation:
            steps = observation.get("remaining_steps")
            return (
                np.asarray(observation["observation"]),
                np.asarray(observation["remaining_budget"])[..., 0],
                None if steps is None else np.asarray(steps)[..., 0],
            )
        flat = np.asarray(observation)
        if flat.ndim > 0 and flat.shape[-1] == self.task.obs_dim + 1:
            return flat[..., :-1], flat[..., -1], None
        raise ValueError(
            "The observation has no remaining budget: wrap the environment in "
            "safe_envs.BudgetObservation."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent into the folder `path` (one safetensors file, atomically)."""
        tensors, document = self._state()
        document |= {"task": asdict(self.task), "about": self.about}
        save_checkpoint(Path(path) / FILE_NAME, self.method, tensors, document)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        seed: int = 0,
        **settings: Any,
    ) -> Self:
        """Loads an agent from a folder, or one that comes with the package.

        Args:
            path: Folder that `save` wrote or a run was trained in, or the name of a pretrained
                agent, such as `"pendulum"`.
            device: See the class.
            seed: See the class.
            **settings: Settings to change that training did not fix.

        Raises:
            UnknownNameError: There is neither such a folder nor such an agent or setting.
            CheckpointError: The file is damaged or foreign.
        """
        tensors, document = load_checkpoint(agent_file(path), cls.method)
        task = Task.from_json(document["task"])
        return cls._from_state(
            tensors,
            document,
            settings,
            task=task,
            about=document["about"],
            device=device,
            seed=seed,
        )

    def new_generator(self, seed: int | None = None) -> torch.Generator:
        """Returns a generator on the agent's device; None takes the agent's seed."""
        return torch.Generator(self.device).manual_seed(self.seed if seed is None else seed)


def _one_per_state(name: str, values: npt.ArrayLike, num: int) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.shape not in ((), (num,)):
        raise ValueError(
            f"{name} should be one number, or one per state ({num},). Received {array.shape}."
        )
    return np.broadcast_to(array, (num,))
