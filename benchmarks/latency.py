"""How long one `act` takes, and how many samples a second are trained on, next to the plain way.

    python benchmarks/latency.py                       # HalfCheetah's and Pendulum's dimensions
    python benchmarks/latency.py --rounds 9 --parts act --device cuda
    python benchmarks/latency.py --small --out /tmp    # tiny networks: does it run?

Everything is timed in turns in one run, with random weights; medians. Beside it stand the plain way
(plain.py: how the reference code plans and trains) and the floor: floating point operations and
bytes of weights, divided by what convolutions, matrix products and copies reach in the same run;
and, on a CPU, the share of the time inside PyTorch's convolutions, which both ways call.
Writes results/latency/PART-TASK-HARDWARE.json and .md.
"""

import argparse
import itertools
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from latency_planners import (
    SMALL,
    TASKS,
    Case,
    cases,
    ceilings,
    convolution_share,
    fastest_arithmetic,
    floor_milliseconds,
)
from latency_report import as_markdown
from latency_training import training_cases
from markdown_table import write_report
from rich.progress import Progress

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.storage import provenance

RESULTS = Path(__file__).parent.parent / "results" / "latency"
BATCHES = (1, 16, 256)


@dataclass(frozen=True)
class Stopwatch:
    """Times calls on a device: CPU time of a single thread, which other processes do not disturb,
    or else wall time."""

    device: torch.device
    progress: Progress

    @property
    def clock(self) -> str:
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        return "CPU time" if alone else "wall time"

    def seconds(self, call: Callable[[], Any]) -> float:
        now = time.process_time if self.clock == "CPU time" else time.perf_counter
        begin = now()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return now() - begin

    def in_turns(
        self, calls: dict[str, Callable[[], Any]], rounds: int, description: str
    ) -> dict[str, float]:
        """Median seconds of each call, one after the other; the first round is not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in self.progress.track(range(rounds + 1), description=description):
            for name, call in calls.items():
                seconds[name].append(self.seconds(call))
        return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def batches_of(case: Case, limit: float, watch: Stopwatch) -> tuple[list[int], float]:
    """Batch sizes that take at most about `limit` seconds, by the time of the smallest; and the
    seconds of the very first plan, which compiles and records what is to be."""
    begin = time.perf_counter()
    case.act(1)
    first = time.perf_counter() - begin
    alone = watch.seconds(lambda: case.act(1))
    others = [] if case.one_at_a_time else BATCHES[1:]
    return [1, *(batch for batch in others if alone * batch / 2 <= limit)], first


def measure_acts(task: Task, rounds: int, watch: Stopwatch, options: Any) -> dict[str, Any]:
    """Every planner at every batch size, and the ceilings, in turns; and what does not run."""
    all_cases, of_machine = cases(task, watch.device, options.small), ceilings(watch.device)
    batches, first, failed = {}, {}, {}
    for case in watch.progress.track(all_cases, description="first plans"):
        try:
            batches[case.name], first[case.name] = batches_of(case, options.limit, watch)
        except RuntimeError as error:  # such as no compiler, or what cannot be recorded
            failed[case.name] = str(error).splitlines()[0]
    all_cases = [case for case in all_cases if case.name not in failed]
    calls: dict[str, Callable[[], Any]] = {
        f"{case.name}|{batch}": partial(case.act, batch)
        for case in all_cases
        for batch in batches[case.name]
    }
    calls |= {name: ceiling.call for name, ceiling in of_machine.items()}
    seconds = watch.in_turns(calls, rounds, "act")
    reached = {name: ceiling.amount / seconds[name] for name, ceiling in of_machine.items()}
    rows = [
        {
            "planner": case.name,
            "compared_with": case.compared_with,
            "milliseconds": {b: 1e3 * seconds[f"{case.name}|{b}"] for b in batches[case.name]},
            "first_seconds": first[case.name],
            "gigaflop": case.gigaflop(),
            "floor_milliseconds": floor_milliseconds(case, reached),
            "guidance_megabytes_per_trajectory": case.guidance_bytes() / 1e6,
            "weights_megabytes": case.weight_bytes() / 1e6,
            "convolution_share": convolution_share(partial(case.act, 1), watch.device),
        }
        for case in all_cases
    ]
    return {"rows": rows, "failed": failed, "ceilings": reached}


def measure_training(task: Task, rounds: int, watch: Stopwatch, options: Any) -> dict[str, Any]:
    """Samples per second: ours and the plain way, in turns, and what the arithmetic allows."""
    rows = []
    of_machine = ceilings(watch.device)
    for case in training_cases(task, watch.device, options.small):
        calls = {"plain": case.plain, "ours": case.ours}
        calls |= {name: ceiling.call for name, ceiling in of_machine.items()}
        seconds = watch.in_turns(calls, rounds, f"train {case.networks}")
        reached = {name: ceiling.amount / seconds[name] for name, ceiling in of_machine.items()}
        gigaflop = case.gigaflop_per_sample()
        rows.append(
            {
                "networks": case.networks,
                "plain_samples_per_second": case.num_samples / seconds["plain"],
                "ours_samples_per_second": case.num_samples / seconds["ours"],
                "gigaflop_per_sample": gigaflop,
                "most_samples_per_second": fastest_arithmetic(reached) / gigaflop,
                "convolution_share": convolution_share(case.ours, watch.device),
            }
        )
    return {"training": rows}


PARTS = {"act": measure_acts, "training": measure_training}


def hardware_name(about: dict[str, Any], device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else about["hardware"]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that one act may take")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help=f"for a test: {SMALL}")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    about = provenance() | {"threads": torch.get_num_threads(), "device": options.device}
    with tempfile.TemporaryDirectory() as cache, Progress() as progress:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that first plans compile
        watch = Stopwatch(torch.device(options.device), progress)
        for part, task in itertools.product(options.parts, options.tasks):
            document = {
                "task": task,
                **PARTS[part](TASKS[task], options.rounds, watch, options),
                "rounds": options.rounds,
                "clock": watch.clock,
                "provenance": about,
            }
            path = options.out / f"{part}-{task.lower()}-{hardware_name(about, options.device)}"
            write_report(path, document, as_markdown)


if __name__ == "__main__":
    main()
