"""How tensors are computed: on which device, compiled, or recorded once and replayed.

A function of tensors that looks at none of their values can be translated into machine code as a
whole, and on a GPU recorded as a CUDA graph, which repeats the same kernels on the same memory
without a word from Python in between. What it depends on is recorded with it, but for the values in
memory and the state of given random generators. The numbers are those of the plain way up to
rounding.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Results = TypeVar("Results", bound=tuple[Tensor, ...])

# All agents of a process share the compiler's account of one `plan` method: three each, for one
# state, for a few and for many.
MAX_COMPILATIONS = 256

# Calls a function with arguments and whatever it draws from; returns what replays the call, and the
# results that a replay writes to.
Recorder = Callable[
    [Callable[..., Any], Sequence[Tensor], torch.Generator | None],
    tuple[Callable[[], object], Any],
]

NUM_WARM_UPS = 3  # calls before a recording, in which libraries choose and set up their kernels
MAX_RECORDS = 8  # recordings that are kept; each has memory of its own


def resolve_device(device: str | torch.device) -> torch.device:
    """Returns a device; `"auto"` is a GPU if there is one.

    Raises:
        ValueError: There is no such device.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device should be 'cpu', 'cuda', 'cuda:0' or 'auto'. Received {device!r}."
        ) from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no CUDA device. Use device='cpu' or 'auto'.")
    return resolved


@contextlib.contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Runs the block on one CPU thread if `when` is true, and then on as many as before."""
    if not when:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_execution(execution: str, device: torch.device, *, large: bool) -> None:
    """Refuses a way of computing that makes no sense on a device.

    Args:
        execution: `"eager"`, `"compiled"` or `"recorded"`.
        device: Where the tensors are.
        large: Whether the networks are large, such as U-Nets.

    Raises:
        ValueError: A recording, or large compiled networks, were asked for without a GPU.
    """
    if execution == "recorded" and device.type != "cuda":
        raise ValueError(
            "execution='recorded' needs a CUDA device. Load the agent with execution='eager' here."
        )
    if execution == "compiled" and large and device.type != "cuda":
        raise ValueError(
            "execution='compiled' makes U-Nets slower without a CUDA device. Load the agent with "
            "execution='eager' here."
        )


def executable(
    plan: Callable[..., Results],
    execution: str,
    device: torch.device,
    networks: Sequence[nn.Module] = (),
) -> Callable[..., Results]:
    """Returns a function that computes what `plan` does.

    Args:
        plan: Takes and returns tensors.
        execution: `"eager"`: one operation after the other. `"compiled"`: as machine code, recorded
            on a GPU. `"recorded"`: eager, but recorded on a GPU.
        device: Where the tensors are.
        networks: If given, these are compiled, one by one, instead of the whole plan: for networks
            that are large, and called so often that the whole would take very long to compile.

    Raises:
        ValueError: A recording, or compiled networks, were asked for without a GPU.
    """
    check_execution(execution, device, large=bool(networks))
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


def record_cuda_graph(
    function: Callable[..., Any],
    arguments: Sequence[Tensor],
    generator: torch.Generator | None,
) -> tuple[Callable[[], object], Any]:
    """Records one call as a CUDA graph, which reads its arguments where they are.

    Args:
        function: What is called, several times before the recording.
        arguments: Of the function.
        generator: What it draws from. Recording leaves its state as it was; a replay draws anew.
    """
    state = None if generator is None else generator.get_state()
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(NUM_WARM_UPS):
            function(*arguments)
    main.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if generator is not None and state is not None:
        generator.set_state(state)
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        results = function(*arguments)
    return graph.replay, results


class Recorded:
    """A function of tensors that is recorded for each shape of its arguments, and replayed.

    Args:
        function: Takes tensors and returns a named tuple of tensors. Other tensors that it uses
            (weights) have to stay where they are, and may change there.
        record: Makes a recording.
    """

    def __init__(self, function: Callable[..., Any], record: Recorder = record_cuda_graph):
        self._function, self._record = function, record
        self._records: dict[Any, tuple[list[Tensor], Callable[[], object], Any]] = {}

    def __call__(self, *arguments: Tensor) -> Any:
        """Copies the arguments into the recorded ones, replays, and copies the results out."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._records:
            if len(self._records) == MAX_RECORDS:
                del self._records[next(iter(self._records))]  # the oldest
            inputs = [argument.clone() for argument in arguments]
            self._records[shapes] = (inputs, *self._record(self._function, inputs, None))
        inputs, replay, results = self._records[shapes]
        for recorded, argument in zip(inputs, arguments, strict=True):
            recorded.copy_(argument)
        replay()
        return type(results)(*(result.clone() for result in results))
