"""How a plan is computed: operation by operation, compiled, or recorded once and replayed.

A plan is a function of tensors (observations, budgets, steps, noise) that looks at none of their
values. So it can be translated into machine code as a whole, and on a GPU recorded as a CUDA graph,
which repeats the same kernels on the same memory without a word from Python in between. The numbers
are those of the plain way up to rounding.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from safe_diffusion_agent.cuda_graphs import Recorded

Results = TypeVar("Results", bound=tuple[Tensor, ...])

# All agents of a process share the compiler's account of one `plan` method: three each, for one
# state, for a few and for many.
MAX_COMPILATIONS = 256


def executable(
    plan: Callable[..., Results],
    execution: str,
    device: torch.device,
    networks: Sequence[nn.Module] = (),
) -> Callable[..., Results]:
    """A function that computes what `plan` does.

    Args:
        plan: Takes and returns tensors.
        execution: See `PlannerConfig.execution`.
        device: Where the tensors are.
        networks: If given, these are compiled, one by one, instead of the whole plan: for networks
            that are large, and called so often that the whole would take very long to compile.

    Raises:
        ValueError: A recording, or compiled networks, were asked for without a GPU.
    """
    if execution == "recorded" and device.type != "cuda":
        raise ValueError(
            "execution='recorded' needs a CUDA device. Load the agent with execution='eager' here."
        )
    if execution == "compiled" and networks and device.type != "cuda":
        raise ValueError(
            "execution='compiled' makes U-Nets slower without a CUDA device. Load the agent with "
            "execution='eager' here."
        )
    if execution == "compiled":
        for network in networks:
            network.compile()
        if not networks:
            plan = _compiled(plan)
    if execution != "eager" and device.type == "cuda":
        plan = Recorded(plan)
    return plan


def _compiled(plan: Callable[..., Results]) -> Callable[..., Results]:
    import torch._dynamo  # takes seconds, and most agents do not need it

    compiled = torch.compile(plan, fullgraph=True)
    settings = {
        "trace_autograd_ops": True,  # guidance differentiates inside of the plan
        "recompile_limit": MAX_COMPILATIONS,
        # Numbers are part of the code. Else the compiler takes those that differ between agents of
        # one process (discounts) for inputs, and gets them wrong (PyTorch 2.13).
        "specialize_float": True,
        "specialize_int": True,
    }

    def call(*arguments: Tensor) -> Results:
        with torch._dynamo.config.patch(settings), _explained():
            return compiled(*arguments)

    return call


@contextlib.contextmanager
def _explained() -> Any:
    try:
        yield
    except torch._inductor.exc.InductorError as error:
        raise RuntimeError(
            f"The plan cannot be compiled here ({str(error).splitlines()[0]}). Install a C++ "
            "compiler such as g++, or use execution='eager'."
        ) from error
