"""The actions of an evaluation, from which it continues after an interruption.

Environments that were reset with a seed are led by the same actions to the same states. So actions
and the state of the random numbers are all that needs to be kept.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.evaluation.rollout import Policy
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint

KIND = "actions"


class ActionLog:
    """Writes down what policies do, and does it again when their episodes are run once more.

    Args:
        path: The file. One that is damaged or of another identity is not used, but overwritten.
        identity: JSON values: all that the actions depend on.
        save_seconds: A crash loses at most so much, and one call of the policy.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], save_seconds: float = 30.0):
        self._path, self._identity, self._save_seconds = path, identity, save_seconds
        self._actions: list[npt.NDArray[Any]] = []
        self._generator_state: torch.Tensor | None = None
        self._num_done = 0
        self._restore()

    def logged(self, policy: Policy, generator: torch.Generator, interval: int = 1) -> Policy:
        """The policy, but what is in the log already is not computed again.

        Several are logged one after the other, in the same order each time, and with the same
        number of episodes.

        Args:
            policy: The policy.
            generator: All that it draws random numbers from.
            interval: Calls after which it has no memory of earlier ones.
        """
        first, saved = self._num_done, time.monotonic()

        def act(obs: Any, remaining_budget: Any, remaining_steps: Any) -> npt.NDArray[Any]:
            nonlocal saved
            if self._num_done < len(self._actions):
                if self._num_done == len(self._actions) - 1 and self._generator_state is not None:
                    generator.set_state(self._generator_state)
            else:
                self._actions.append(policy(obs, remaining_budget, remaining_steps))
                since_first = len(self._actions) - first
                if since_first % interval == 0 and time.monotonic() - saved >= self._save_seconds:
                    self._save(generator)
                    saved = time.monotonic()
            self._num_done += 1
            return self._actions[self._num_done - 1]

        return act

    def remove(self) -> None:
        """Deletes the file, when what the actions led to is stored."""
        self._path.unlink(missing_ok=True)

    def _save(self, generator: torch.Generator) -> None:
        tensors = {
            "actions": torch.from_numpy(np.stack(self._actions)),
            "generator": generator.get_state(),
        }
        save_checkpoint(self._path, KIND, tensors, {"identity": self._identity})

    def _restore(self) -> None:
        try:
            tensors, document = load_checkpoint(self._path, KIND)
        except CheckpointError:
            return
        if document["identity"] == self._identity:
            self._actions = list(tensors["actions"].numpy())
            self._generator_state = tensors["generator"]
