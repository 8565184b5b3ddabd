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
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint

KIND = "actions"


class ActionLog:
    """Writes down what policies do, and gives it back when their episodes are run once more.

    Policies are logged one after the other, in the same order each time, and with the same number
    of episodes; `begin` comes before each of them.

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

    def begin(self, generator: torch.Generator, interval: int = 1) -> None:
        """Says that another policy comes.

        Args:
            generator: All that it draws random numbers from.
            interval: Calls after which it has no memory of earlier ones.
        """
        self._generator, self._interval = generator, interval
        self._first, self._saved = self._num_done, time.monotonic()

    def replay(self) -> npt.NDArray[Any] | None:
        """Returns the next logged actions `(n, A)`, or None where the log ends."""
        if self._num_done == len(self._actions):
            return None
        self._num_done += 1
        if self._num_done == len(self._actions) and self._generator_state is not None:
            self._generator.set_state(self._generator_state)
        return self._actions[self._num_done - 1]

    def append(self, actions: npt.NDArray[Any]) -> None:
        """Writes down actions `(n, A)` that the policy chose; saves from time to time."""
        self._actions.append(actions)
        self._num_done += 1
        is_between_plans = (self._num_done - self._first) % self._interval == 0
        if is_between_plans and time.monotonic() - self._saved >= self._save_seconds:
            self._save()
            self._saved = time.monotonic()

    def remove(self) -> None:
        """Deletes the file, when what the actions led to is stored."""
        self._path.unlink(missing_ok=True)

    def _save(self) -> None:
        tensors = {
            "actions": torch.from_numpy(np.stack(self._actions)),
            "generator": self._generator.get_state(),
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
