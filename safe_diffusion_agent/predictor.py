"""Acting as Stable-Baselines3 asks for it: from observations that hold their remaining budget."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.episodes import FloatArray, Task

PredictState = tuple[npt.NDArray[Any], ...]


class Predictor:
    """Gives an agent the face of Stable-Baselines3's `PolicyPredictor`."""

    task: Task

    @abstractmethod
    def act(
        self,
        obs: Any,
        remaining_budget: Any,
        remaining_steps: Any = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """Returns the next action."""

    @abstractmethod
    def new_generator(self) -> torch.Generator:
        """Returns a generator that always begins alike."""

    def predict(
        self,
        observation: Any,
        state: PredictState | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[FloatArray, PredictState]:
        """Acts as Stable-Baselines3's `PolicyPredictor`, for `evaluate_policy` and callbacks.

        Args:
            observation: What `BudgetObservation` gives, as a Dict or flat; one or a batch.
            state: What the last call returned: the steps taken in each episode. None: no step yet.
            episode_start: `(n,)`, where True the step count starts again.
            deterministic: Takes the same random numbers in every call, so that the action depends
                on the arguments alone.

        Returns:
            The actions, and the state for the next call.

        Raises:
            ValueError: There is no budget in the observation, or `act` refuses it.
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

    def _split(self, observation: Any) -> tuple[npt.NDArray[Any], Any, Any]:
        """Returns observation, remaining budget and (where shown) remaining steps."""
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
