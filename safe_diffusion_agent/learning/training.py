"""One training loop for every method: a module and a loss in, an averaged module out.

It can be killed at any moment: at intervals everything that it needs to continue, random numbers
included, is saved, and a continued training is the same as one that was never interrupted.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from safe_diffusion_agent.compute import Recorder
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.settings import difference
from safe_diffusion_agent.storage import load_checkpoint, save_checkpoint

Loss = Callable[[nn.Module, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
AfterStep = Callable[[nn.Module], None]
Progress = Callable[..., None]

NUM_LOGGED = 200  # points of a loss curve


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """How to optimise.

    Attributes:
        num_steps: Optimiser steps.
        accumulate: Gradients averaged per optimiser step.
        learning_rate: Of Adam.
        decay_from: Share of the training after which the learning rate falls linearly to zero;
            1 keeps it constant.
        ema_decay: Decay of the average of the weights.
        ema_interval: Optimiser steps between two updates of the average.
        ema_start: Until this step the average is a copy of the weights.
    """

    num_steps: int
    accumulate: int
    learning_rate: float
    decay_from: float
    ema_decay: float
    ema_interval: int
    ema_start: int


class _Run:
    """A module in training, with all that changes while it trains."""

    def __init__(
        self,
        module: nn.Module,
        config: OptimizationConfig,
        learning_rates: Mapping[str, float],
        generator: torch.Generator,
    ):
        self.module = module
        self.average = copy.deepcopy(module).requires_grad_(False)
        groups = _groups(module, config.learning_rate, learning_rates)
        self.optimizer = torch.optim.Adam(groups, fused=True)  # one kernel for all weights
        self.generator = generator
        self.step = 0
        self.history: list[dict[str, float]] = []

    def gradients_of(
        self, loss: Loss, num: int, record: Recorder | None
    ) -> Callable[[], list[dict[str, Tensor]]]:
        """What leaves the mean gradient of `num` batches in the weights, and returns the parts."""

        def compute() -> list[dict[str, Tensor]]:
            self.optimizer.zero_grad()  # so that the first batch's gradients are written, not added
            batches = []
            for _ in range(num):
                value, parts = loss(self.module, self.generator)
                (value / num).backward()
                batches.append(parts)
            return batches

        if record is None:
            return compute
        replay, recorded = record(compute, (), self.generator)

        def compute_again() -> list[dict[str, Tensor]]:
            replay()
            return [{name: part.clone() for name, part in parts.items()} for parts in recorded]

        return compute_again

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        tensors = {"generator": self.generator.get_state()}
        tensors |= {f"module/{name}": t for name, t in self.module.state_dict().items()}
        tensors |= {f"average/{name}": t for name, t in self.average.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": t for name, t in moments.items()}
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
        self.module.load_state_dict(_group(tensors, "module/"))
        self.average.load_state_dict(_group(tensors, "average/"))
        self.generator.set_state(tensors["generator"])
        state = self.optimizer.state_dict()
        for index in (index for group in state["param_groups"] for index in group["params"]):
            state["state"][index] = _group(tensors, f"adam/{index}/")
        self.optimizer.load_state_dict(state)
        self.step, self.history = document["step"], document["history"]


def optimize(
    module: nn.Module,
    loss: Loss,
    config: OptimizationConfig,
    *,
    generator: torch.Generator,
    learning_rates: Mapping[str, float] | None = None,
    after_step: AfterStep | None = None,
    record: Recorder | None = None,
    state_path: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    save_interval: int = 1_000,
    progress: Progress | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Minimises a loss with Adam.

    Args:
        module: The networks, on the device they train on; changed in place.
        loss: Called as `loss(module, generator)`; returns the loss to differentiate and named
            parts of it to log.
        config: How to optimise.
        generator: Gives all random numbers of the training.
        learning_rates: Learning rates that differ from the config's, by the beginning of the
            parameters' names.
        after_step: Called with the module after every optimiser step, without gradients: for
            target networks and projections.
        record: Makes a recording of what computes the gradients of one step, which is replayed in
            every step, such as `cuda_graphs.record_cuda_graph`: for losses that look at no value.
        state_path: File to continue from and to save to. None neither saves nor continues.
        identity: JSON values that a continued training must share (dataset, config, seed).
        save_interval: Optimiser steps between saves.
        progress: Called after every step as `progress(done, total, <parts of the loss>)`.

    Returns:
        The module with averaged weights, in evaluation mode, and the logged losses.

    Raises:
        CheckpointError: `state_path` belongs to another training, or is damaged.
        FloatingPointError: The loss is not finite.
    """
    identity = json.loads(json.dumps({"optimization": asdict(config), **(identity or {})}))
    run = _Run(module, config, learning_rates or {}, generator)
    if state_path is not None and state_path.exists():
        run.restore(state_path, identity)
    update_average = get_ema_multi_avg_fn(config.ema_decay)
    averaged = list(run.average.parameters())
    weights = [parameter.detach() for parameter in module.parameters()]
    log_interval = max(1, config.num_steps // NUM_LOGGED)
    logged: list[dict[str, Tensor]] = []
    means: dict[str, float] = {}
    compute_gradients = run.gradients_of(loss, config.accumulate, record)
    while run.step < config.num_steps:
        _set_learning_rate(run.optimizer, config, run.step / config.num_steps)
        logged += compute_gradients()
        run.optimizer.step()
        if after_step is not None:
            with torch.no_grad():
                after_step(module)
        run.step += 1
        if run.step <= config.ema_start:
            run.average.load_state_dict(module.state_dict())
        elif run.step % config.ema_interval == 0:
            update_average(averaged, weights, run.step)
        if run.step % log_interval == 0:
            means = {
                key: torch.stack([parts[key] for parts in logged]).mean().item()
                for key in logged[-1]
            }
            _check_finite(means, run.step)
            run.history.append({"step": run.step, **means})
            logged = []
        if progress is not None:
            progress(run.step, config.num_steps, **means)
        if state_path is not None and (
            run.step % save_interval == 0 or run.step == config.num_steps
        ):
            run.save(state_path, identity)
    run.optimizer.zero_grad()
    return run.average.eval(), run.history


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, share_done: float
) -> None:
    factor = 1.0
    if share_done > config.decay_from:
        factor = (1.0 - share_done) / (1.0 - config.decay_from)
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor


def _groups(
    module: nn.Module, learning_rate: float, learning_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Adam's parameter groups: what is trained, by learning rate."""
    groups: dict[str, dict[str, Any]] = {
        prefix: {"params": [], "lr": rate, "full_lr": rate}
        for prefix, rate in {"": learning_rate, **learning_rates}.items()
    }
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            prefix = max((p for p in groups if name.startswith(p)), key=len)
            groups[prefix]["params"].append(parameter)
    unused = [prefix for prefix in learning_rates if not groups[prefix]["params"]]
    if unused:
        raise ValueError(f"learning_rates should name trained parameters. Received {unused}.")
    return [group for group in groups.values() if group["params"]]


def _check_finite(means: dict[str, float], step: int) -> None:
    broken = [name for name, value in means.items() if not abs(value) < float("inf")]
    if broken:
        raise FloatingPointError(
            f"The loss is not finite at step {step} ({', '.join(broken)}). "
            "Use a smaller learning_rate, or look for outliers in the dataset."
        )


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
