"""How a plan is computed: operation by operation, compiled, or recorded once and replayed.

A plan is a function of tensors (observations, budgets, steps, noise) that looks at none of their
values. So it can be translated into machine code as a whole, and on a GPU recorded as a CUDA graph,
which repeats the same kernels on the same memory without a word from Python in between. The numbers
are those of the plain way up to rounding.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

Execution = Literal["eager", "compiled", "recorded"]
Results = TypeVar("Results", bound=tuple[Tensor, ...])
# Calls a function, and returns what replays the call, and the results that a replay writes to.
Recorder = Callable[[Callable[..., Any], Sequence[Tensor]], tuple[Callable[[], object], Any]]

NUM_WARM_UPS = 3  # calls before a recording, in which libraries choose and set up their kernels
MAX_RECORDS = 8  # recordings that are kept; each has memory of its own


def executable(
    plan: Callable[..., Results],
    execution: Execution,
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
        ValueError: A recording was asked for without a GPU.
    """
    if execution == "recorded" and device.type != "cuda":
        raise ValueError(
            "execution='recorded' needs a CUDA device. Use execution='compiled' on this one."
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

    def call(*arguments: Tensor) -> Results:
        # Guidance differentiates inside of the plan.
        with torch._dynamo.config.patch(trace_autograd_ops=True), _explained():
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


class Recorded:
    """A function of tensors that is recorded for each shape of its arguments, and replayed.

    Args:
        function: Takes tensors and returns a named tuple of tensors. Other tensors that it uses
            (weights) have to stay where they are, and may change there.
        record: Makes a recording.
    """

    def __init__(self, function: Callable[..., Results], record: Recorder | None = None):
        self._function = function
        self._record = record or record_cuda_graph
        self._records: dict[Any, tuple[list[Tensor], Callable[[], object], Any]] = {}

    def __call__(self, *arguments: Tensor) -> Any:
        """Copies the arguments into the recorded ones, replays, and copies the results out."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._records:
            if len(self._records) == MAX_RECORDS:
                del self._records[next(iter(self._records))]  # the oldest
            inputs = [argument.clone() for argument in arguments]
            self._records[shapes] = (inputs, *self._record(self._function, inputs))
        inputs, replay, results = self._records[shapes]
        for recorded, argument in zip(inputs, arguments, strict=True):
            recorded.copy_(argument)
        replay()
        return type(results)(*(result.clone() for result in results))


def record_cuda_graph(
    function: Callable[..., Any], arguments: Sequence[Tensor]
) -> tuple[Callable[[], object], Any]:
    """Records one call as a CUDA graph, which reads its arguments where they are."""
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(NUM_WARM_UPS):
            function(*arguments)
    main.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*arguments)
    return graph.replay, results
