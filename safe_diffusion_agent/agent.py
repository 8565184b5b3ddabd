"""`Agent`: what every method has in common, seen from outside.

An agent acts on an observation and the budget that remains. It stores nothing about the episode:
the budget belongs to the caller, who may raise or cut it at any step.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from safe_diffusion_agent.compute import resolve_device
from safe_diffusion_agent.episodes import FloatArray, Task
from safe_diffusion_agent.errors import CheckpointError, UnknownNameError, warn
from safe_diffusion_agent.predictor import Predictor
from safe_diffusion_agent.settings import from_json, override
from safe_diffusion_agent.storage import FILE_NAME, agent_file, load_checkpoint, save_checkpoint

States = tuple[Tensor, Tensor, Tensor]  # observations `(n, O)`, budgets `(n,)`, steps `(n,)`
Parts = dict[str, dict[str, Tensor]]
Result = TypeVar("Result")


class Agent(Predictor, ABC):
    """An agent that keeps a budget which it is given at every step.

    Args:
        config: Its settings, a frozen dataclass with the name of a `preset`.
        task: What it was trained for.
        about: JSON values on its origin (command, versions, seed), kept in the checkpoint.
        device: `"auto"` takes a GPU if there is one.
        seed: Fixes the agent's random numbers.

    Attributes:
        method: Name of its method.
        config_class: Class of its settings.
        changeable: Names of the settings that training leaves open.
        unread: Names of settings of its config that change nothing; they are refused.
        few_states: With at most so many states and small networks, `act` takes one CPU thread.
        max_states: States that are acted on at a time; bounds the memory.
    """

    method: ClassVar[str]
    config_class: ClassVar[Any]
    changeable: ClassVar[tuple[str, ...]] = ()
    unread: ClassVar[tuple[str, ...]] = ()
    few_states: int = 8
    max_states: int = 1024

    def __init__(
        self,
        config: Any,
        task: Task,
        *,
        about: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
    ):
        self.config, self.task = config, task
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
        """Factor on the budgets that an evaluation gives at the start of an episode."""
        return 1.0

    @property
    def looks_at_time(self) -> bool:
        """Whether the actions depend on how much of the episode is left."""
        return False

    def for_budget(self, budget: float) -> "Agent":
        """Returns the agent for episodes that start with a budget; mostly this one.

        Args:
            budget: In cost units.
        """
        del budget
        return self

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FloatArray:
        """Returns the next action, inside of the action space.

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
            FloatingPointError: The networks gave no finite action.
        """
        states = self._check_inputs(obs, remaining_budget, remaining_steps)
        actions = self._check_finite(torch.cat(self._in_chunks(self._act, states, generator)))
        low, high = (np.array(b, np.float32) for b in (self.task.action_low, self.task.action_high))
        actions = np.clip(actions, low, high)
        return actions[0] if np.ndim(obs) == 1 else actions

    @abstractmethod
    def _act(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns actions `(n, A)`, environment units, for `(n, O)`, `(n,)` and `(n,)`."""

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """Returns what is saved, by name: modules, or objects whose attributes are tensors."""

    @classmethod
    @abstractmethod
    def _from_parts(cls, parts: Parts, config: Any, task: Task, **common: Any) -> Self:
        """Rebuilds the agent; takes what it uses out of `parts`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent into the folder `path` (one safetensors file, atomically)."""
        tensors = {
            f"{name}/{key}": tensor
            for name, part in self._parts().items()
            for key, tensor in _tensors_of(part).items()
        }
        document = {"config": asdict(self.config), "task": asdict(self.task), "about": self.about}
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
            device: `"cpu"`, `"cuda"`, ...; `"auto"` takes a GPU if there is one.
            seed: Fixes the agent's random numbers.
            **settings: Settings to change that training did not fix.

        Raises:
            UnknownNameError: There is neither such a folder nor such an agent or setting.
            ValueError: A setting is out of range or has no effect, or there is no such device.
            CheckpointError: The file is damaged or foreign.
        """
        device = resolve_device(device)
        tensors, document = load_checkpoint(agent_file(path), cls.method)
        for name in settings:
            if name not in cls.changeable:
                raise UnknownNameError("setting that training leaves open", name, cls.changeable)
        stored = from_json(cls.config_class, document["config"])
        config = override(stored, settings, unread=cls.unread)
        task = Task.from_json(document["task"])
        parts: Parts = {}
        for name, tensor in tensors.items():
            group, _, key = name.partition("/")
            parts.setdefault(group, {})[key] = tensor
        common = {"about": document["about"], "device": device, "seed": seed}
        try:
            agent = cls._from_parts(parts, config, task, **common)
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"The checkpoint does not fit its own config: {error}") from error
        if parts:
            raise CheckpointError(f"The checkpoint has parts that it should not: {sorted(parts)}.")
        return agent

    def new_generator(self, seed: int | None = None) -> torch.Generator:
        """Returns a generator on the agent's device; None takes the agent's seed."""
        return torch.Generator(self.device).manual_seed(self.seed if seed is None else seed)

    def _check_inputs(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None,
    ) -> States:
        """Returns the arguments of `act` as tensors on the device, or says what is wrong."""
        observations = np.asarray(obs, np.float32)
        dim, limit = self.task.obs_dim, self.task.max_episode_steps or math.inf
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
        if remaining_steps is None and self.looks_at_time:
            warn(
                "This agent looks at how much of the episode is left: give it the remaining_steps "
                '(BudgetObservation reports info["remaining_steps"]). Without them it acts as if '
                "the whole episode were still ahead."
            )
        given = limit if remaining_steps is None else remaining_steps
        steps = _one_per_state("remaining_steps", given, len(observations))
        if not ((steps >= 1) & (steps <= limit)).all():
            raise ValueError(
                f"remaining_steps should be from 1 to {limit}. Received {remaining_steps!r}."
            )
        return (
            torch.tensor(observations, device=self.device),
            torch.tensor(budgets, dtype=torch.float32, device=self.device),
            torch.tensor(steps, dtype=torch.float32, device=self.device),
        )

    def _in_chunks(
        self,
        function: Callable[..., Result],
        states: States,
        generator: torch.Generator | None,
        size: int | None = None,
    ) -> list[Result]:
        """Calls a function on `size` (or `max_states`) states at a time, without gradients.

        Networks on few states leave a second thread little to do, but each of their hundreds of
        operations waits for it. Where another process wants the core, that wait is a turn of the
        scheduler, and a plan of 10 ms takes 100 ms or a second (`benchmarks/latency.py`).
        """
        generator = self.generator if generator is None else generator
        num_threads = torch.get_num_threads()
        one_thread = len(states[0]) <= self.few_states and num_threads > 1
        if one_thread:
            torch.set_num_threads(1)
        try:
            with torch.no_grad():
                parts = (tensor.split(size or self.max_states) for tensor in states)
                return [function(*chunk, generator) for chunk in zip(*parts, strict=True)]
        finally:
            if one_thread:
                torch.set_num_threads(num_threads)

    def _check_finite(self, actions: Tensor) -> FloatArray:
        """Returns the actions as an array, or says what may have made them infinite or NaN."""
        array: FloatArray = actions.cpu().numpy()
        if not np.isfinite(array).all():
            raise FloatingPointError(
                "There is no finite action. Check that the observation is like those in the "
                "training data; lower the penalty or the guidance_scale where there are any, or "
                "train again with a smaller learning rate."
            )
        return array


def _tensors_of(part: Any) -> dict[str, Tensor]:
    tensors = part.state_dict() if isinstance(part, nn.Module) else vars(part)
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _one_per_state(name: str, values: npt.ArrayLike, num: int) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.shape not in ((), (num,)):
        raise ValueError(
            f"{name} should be one number, or one per state ({num},). Received {array.shape}."
        )
    return np.broadcast_to(array, (num,))
