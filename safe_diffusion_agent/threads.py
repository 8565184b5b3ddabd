"""How many CPU threads small work is done on: one.

Networks this small leave a second thread little to do, but each of their hundreds of operations
waits for it. Where another process wants the core, that wait is a turn of the scheduler, and a plan
of 10 ms takes 100 ms or a second (`benchmarks/latency_under_load.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """What is in it computes on one thread, if `when`; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if when else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
