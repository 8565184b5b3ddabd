"""Calls that are recorded on a GPU once and replayed: the same kernels on the same memory.

What a function does with tensors is recorded with everything that it depends on, but for the values
in memory and the state of given random generators. So it must not look at a value (which a
recording refuses) and not depend on anything else that changes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Calls a function with arguments and whatever it draws from; returns what replays the call, and the
# results that a replay writes to.
Recorder = Callable[
    [Callable[..., Any], Sequence[Tensor], torch.Generator | None],
    tuple[Callable[[], object], Any],
]

NUM_WARM_UPS = 3  # calls before a recording, in which libraries choose and set up their kernels
MAX_RECORDS = 8  # recordings that are kept; each has memory of its own


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
