"""One training loop for every method: networks and their losses in, averaged networks out.

It can be killed at any moment: at intervals everything that it needs to continue, random numbers
included, is saved, and a continued training is the same as one that was never interrupted.
"""

import copy
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from safe_diffusion_agent.compute import Recorder
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint

Progress = Callable[..., None]
History = list[dict[str, float]]

NUM_LOGGED = 200  # points of a loss curve


class Training(nn.Module):
    """Networks in training, with what only the training needs: data, targets, value functions.

    Args:
        networks: What the agent will act with.

    Attributes:
        learning_rates: Those that differ from the config's, by the beginning of parameters' names.
        loss_weights: Those that are not 1, by the names of the losses.
    """

    learning_rates: Mapping[str, float] = {}
    loss_weights: Mapping[str, float] = {}

    def __init__(self, networks: nn.Module):
        super().__init__()
        self.networks: Any = networks

    @abstractmethod
    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one random batch, by name."""

    def after_step(self) -> None:
        """Moves what no gradient moves, after every optimizer step."""


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """How to optimize.

    Attributes:
        num_steps: Optimizer steps.
        learning_rate: Of Adam.
        accumulate: Gradients averaged per optimizer step.
        decay_from: Share of the training after which the learning rate falls linearly to zero;
            1 keeps it constant.
        ema_decay: Decay of the average of the weights; 0 takes the weights of the last step.
        ema_interval: Optimizer steps between two updates of the average.
        ema_start: Until this step the average is a copy of the weights.
    """

    num_steps: int
    learning_rate: float
    accumulate: int = 1
    decay_from: float = 1.0
    ema_decay: float = 0.0
    ema_interval: int = 1
    ema_start: int = 0

    @classmethod
    def of(cls, settings: Any) -> "OptimizationConfig":
        """Returns the settings of these names in another config."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Stages:
    """What the stages of a training of several share.

    Attributes:
        seed: Fixes batches and noise.
        identity: JSON values that a continued training must share (dataset, config, seed).
        state_path: File of the first stage, to continue from. None saves nothing.
        progress: Called as `progress(done, total, ...)` over all stages.
        total: Steps of all stages.
    """

    seed: int
    identity: Mapping[str, Any]
    state_path: Path | None
    progress: Progress | None
    total: int

    def path(self, stage: str) -> Path | None:
        """Returns the file of a later stage."""
        path = self.state_path
        return None if path is None else path.with_stem(f"{path.stem}-{stage}")

    def progress_after(self, done_before: int) -> Progress:
        """Returns the progress of a stage, which counts on after so many steps."""

        def progress(done: int, _: int, **values: float) -> None:
            if self.progress is not None:
                self.progress(done_before + done, self.total, **values)

        return progress


class _Run:
    """A training in progress, with all that changes."""

    def __init__(
        self, training: Training, config: OptimizationConfig, generator: torch.Generator
    ) -> None:
        self.training, self.config, self.generator = training, config, generator
        self.average = copy.deepcopy(training.networks).requires_grad_(False)
        groups = _groups(training, config.learning_rate)
        self.optimizer = torch.optim.Adam(groups, fused=True)  # one kernel for all weights
        self.step = 0
        self.history: History = []
        self.losses: dict[str, list[Tensor]] = {}  # of the batches that are not in it yet
        self._averaged = list(self.average.parameters())
        self._weights = [parameter.detach() for parameter in training.networks.parameters()]
        self._update_average = get_ema_multi_avg_fn(config.ema_decay)

    def gradients(self, record: Recorder | None) -> Callable[[], list[dict[str, Tensor]]]:
        """Returns a function that leaves the mean gradient of a step's batches in the weights.

        The function returns the losses of each batch.
        """
        num = self.config.accumulate

        def compute() -> list[dict[str, Tensor]]:
            self.optimizer.zero_grad()  # so that the first batch's gradients are written, not added
            batches = []
            for _ in range(num):
                losses = self.training.losses(self.generator)
                weights = self.training.loss_weights
                total = torch.stack(
                    [weights.get(name, 1.0) * loss for name, loss in losses.items()]
                ).sum()
                (total / num).backward()
                batches.append({name: loss.detach() for name, loss in losses.items()})
            return batches

        if record is None:
            return compute
        replay, recorded = record(compute, (), self.generator)

        def compute_again() -> list[dict[str, Tensor]]:
            replay()
            return [{name: part.clone() for name, part in parts.items()} for parts in recorded]

        return compute_again

    def finish_step(self) -> None:
        """Moves the weights by their gradients, and the average after them."""
        config, share_done = self.config, self.step / self.config.num_steps
        late = share_done > config.decay_from
        factor = (1.0 - share_done) / (1.0 - config.decay_from) if late else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * factor
        self.optimizer.step()
        with torch.no_grad():
            self.training.after_step()
        self.step += 1
        last = self.step == config.num_steps
        if self.step <= config.ema_start or (last and config.ema_decay == 0.0):
            self.average.load_state_dict(self.training.networks.state_dict())
        elif config.ema_decay > 0.0 and self.step % config.ema_interval == 0:
            self._update_average(self._averaged, self._weights, self.step)

    def log(self) -> dict[str, float]:
        """Appends the mean losses since the last time to the history."""
        means = {name: torch.stack(of).mean().item() for name, of in self.losses.items()}
        self.losses = {}
        if broken := [name for name, value in means.items() if not abs(value) < float("inf")]:
            raise FloatingPointError(
                f"The loss is not finite at step {self.step} ({', '.join(broken)}). "
                "Use a smaller learning_rate, or look for outliers in the dataset."
            )
        self.history.append({"step": self.step, **means})
        return means

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        tensors = {"generator": self.generator.get_state()}
        tensors |= {f"module/{name}": t for name, t in self.training.state_dict().items()}
        tensors |= {f"average/{name}": t for name, t in self.average.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": t for name, t in moments.items()}
        tensors |= {f"losses/{name}": torch.stack(of) for name, of in self.losses.items()}
        document = {"identity": identity, "step": self.step, "history": self.history}
        save_checkpoint(path, "training", tensors, document)

    def restore(self, path: Path, identity: Mapping[str, Any]) -> None:
        tensors, document = load_checkpoint(path, "training")
        if document["identity"] != identity:
            raise CheckpointError(
                f"{path} belongs to another training "
                f"({difference(document['identity'], identity)}). "
                "Choose another folder, or delete the file to start again."
            )
        try:
            self.training.load_state_dict(_group(tensors, "module/"))
            self.average.load_state_dict(_group(tensors, "average/"))
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} was written by another version. Delete it to start again."
            ) from error
        self.generator.set_state(tensors["generator"])
        state = self.optimizer.state_dict()
        for index in (index for group in state["param_groups"] for index in group["params"]):
            state["state"][index] = _group(tensors, f"adam/{index}/")
        self.optimizer.load_state_dict(state)
        self.step, self.history = document["step"], document["history"]
        losses, device = _group(tensors, "losses/"), self.generator.device
        self.losses = {name: list(of.to(device)) for name, of in losses.items()}


def optimize(
    training: Training,
    config: OptimizationConfig,
    *,
    generator: torch.Generator,
    record: Recorder | None = None,
    state_path: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[nn.Module, History]:
    """Minimizes the losses of a training with Adam.

    Args:
        training: The networks and their losses, on the device they train on; changed in place.
        config: How to optimize.
        generator: Gives all random numbers of the training.
        record: Makes a recording of what computes the gradients of one step, which is replayed in
            every step, such as `compute.record_cuda_graph`: for losses that look at no value.
        state_path: File to continue from and to save to. None neither saves nor continues.
        identity: JSON values that a continued training must share (dataset, config, seed).
        save_interval: Optimizer steps between saves.
        progress: Called after every step as `progress(done, total, <losses>)`.

    Returns:
        The networks with averaged weights, in evaluation mode, and the logged losses.

    Raises:
        CheckpointError: `state_path` belongs to another training, or is damaged.
        FloatingPointError: The loss is not finite.
    """
    identity = json.loads(json.dumps({"optimization": asdict(config), **(identity or {})}))
    run = _Run(training, config, generator)
    if state_path is not None and state_path.exists():
        run.restore(state_path, identity)
    log_interval = max(1, config.num_steps // NUM_LOGGED)
    means: dict[str, float] = {}
    compute_gradients = run.gradients(record)
    while run.step < config.num_steps:
        for name, loss in (item for losses in compute_gradients() for item in losses.items()):
            run.losses.setdefault(name, []).append(loss)
        run.finish_step()
        if run.step % log_interval == 0:
            means = run.log()
        if progress is not None:
            progress(run.step, config.num_steps, **means)
        if state_path is not None and (
            run.step % save_interval == 0 or run.step == config.num_steps
        ):
            run.save(state_path, identity)
    run.optimizer.zero_grad()
    return run.average.eval(), run.history


def _groups(training: Training, learning_rate: float) -> list[dict[str, Any]]:
    """Returns Adam's parameter groups: what is trained, by learning rate."""
    groups: dict[str, dict[str, Any]] = {
        prefix: {"params": [], "lr": rate, "full_lr": rate}
        for prefix, rate in {"": learning_rate, **training.learning_rates}.items()
    }
    for name, parameter in training.named_parameters():
        if parameter.requires_grad:
            prefix = max((p for p in groups if name.startswith(p)), key=len)
            groups[prefix]["params"].append(parameter)
    unused = [prefix for prefix in training.learning_rates if not groups[prefix]["params"]]
    if unused:
        raise ValueError(f"learning_rates should name trained parameters. Received {unused}.")
    return [group for group in groups.values() if group["params"]]


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
