"""How long one `act` takes, alone and beside other processes, and how fast a training is.

    python benchmarks/latency.py                       # HalfCheetah's and Pendulum's dimensions
    python benchmarks/latency.py --rounds 9 --parts act --device cuda
    python benchmarks/latency.py --small --out /tmp    # tiny networks: does it run?

    act        planners with random weights, the plain way (plain.py: how the reference code plans),
               and the floor: floating point operations and bytes of weights, divided by what
               convolutions, matrix products and copies reach in the same run
    training   samples per second, ours and the plain way
    load       wall time of one `act` of the package's agent, at the median and at worst, alone and
               beside processes that keep every core busy; and steps of a training

Everything is timed in turns in one run. Writes results/latency/PART-TASK-HARDWARE.json, from which
`trebi report` makes a page.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_planners import (
    FRONTIER,
    TASKS,
    Case,
    cases,
    ceilings,
    config_of,
    convolution_share,
    fastest_arithmetic,
    floor_milliseconds,
    random_episodes,
)
from latency_training import seconds_of_training, training_cases
from rich.progress import Progress

from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.table import load_agent
from safe_diffusion_agent.storage import provenance, write_text

RESULTS = Path(__file__).parent.parent / "results" / "latency"
BATCHES = (1, 16, 256)
LOADED = ("frontier", "realtime")  # how the package's agent plans under load
BLOCK, BLOCK_SECONDS = 20, 2.0  # acts, at most, before the next one's turn
TRAINING_STEPS = 30


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

    @property
    def now(self) -> Callable[[], float]:
        return time.process_time if self.clock == "CPU time" else time.perf_counter

    def seconds(self, call: Callable[[], Any]) -> float:
        """Of a call, unless it returns what it took."""
        begin = self.now()
        own = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return own if isinstance(own, float) else self.now() - begin

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
    others = BATCHES[1:] if case.plain is None else []
    return [1, *(batch for batch in others if alone * batch / 2 <= limit)], first


def measure_acts(task: Task, watch: Stopwatch, options: Any) -> dict[str, Any]:
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
    seconds = watch.in_turns(calls, options.rounds, "act")
    reached = {name: ceiling.amount / seconds[name] for name, ceiling in of_machine.items()}
    rows = [
        {
            "planner": case.name,
            "compared_with": case.compared_with,
            "milliseconds": {b: 1e3 * seconds[f"{case.name}|{b}"] for b in batches[case.name]},
            "first_seconds": first[case.name],
            "gigaflop": gigaflop,
            "floor_milliseconds": floor_milliseconds(case, gigaflop, reached),
            "weights_megabytes": case.weight_bytes() / 1e6,
            "convolution_share": convolution_share(partial(case.act, 1), watch.device),
        }
        for case in all_cases
        for gigaflop in [case.gigaflop()]
    ]
    return {"rows": rows, "failed": failed, "ceilings": reached}


def measure_training(task: Task, watch: Stopwatch, options: Any) -> dict[str, Any]:
    """Samples per second: ours and the plain way, in turns, and what the arithmetic allows."""
    rows = []
    of_machine = ceilings(watch.device)
    for case in training_cases(task, watch.device, options.small):
        ours = partial(case.ours, watch.now)
        calls = {"plain": case.plain, "ours": ours}
        calls |= {name: ceiling.call for name, ceiling in of_machine.items()}
        seconds = watch.in_turns(calls, options.rounds, f"train {case.networks}")
        reached = {name: ceiling.amount / seconds[name] for name, ceiling in of_machine.items()}
        gigaflop = case.gigaflop_per_sample()
        rows.append(
            {
                "networks": case.networks,
                "plain_samples_per_second": case.num_samples / seconds["plain"],
                "ours_samples_per_second": case.num_samples / seconds["ours"],
                "gigaflop_per_sample": gigaflop,
                "most_samples_per_second": fastest_arithmetic(reached) / gigaflop,
                "convolution_share": convolution_share(ours, watch.device),
            }
        )
    return {"training": rows}


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Processes that compute without end."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=spin, daemon=True) for _ in range(num_processes)]
    for process in processes:
        process.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()


def block(agent: Any) -> list[float]:
    """Seconds of one act after the other."""
    obs, budget = np.zeros(agent.task.obs_dim), agent.task.max_budget / 2
    seconds: list[float] = []
    while len(seconds) < BLOCK and sum(seconds) < BLOCK_SECONDS:
        begin = time.perf_counter()
        agent.act(obs, budget, agent.task.max_episode_steps)
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_load(watch: Stopwatch, options: Any) -> dict[str, Any]:
    """Acts of every planner and execution, and trainings on one thread and on all, in blocks."""
    kinds = [(name, execution) for name in LOADED for execution in ("eager", "compiled")]
    agents = {
        kind: load_agent("pendulum", device="cpu", execution=kind[1], **FRONTIER[kind[0]])
        for kind in kinds
    }
    for agent in agents.values():
        block(agent)
    task, all_threads = TASKS["HalfCheetah"], torch.get_num_threads()
    config = config_of("quick", task, options.small, num_steps=TRAINING_STEPS + 1)
    episodes, rows, training = random_episodes(task), [], []
    num_blocks = -(-options.acts // BLOCK)
    for neighbors in (0, os.cpu_count() or 1):
        times: dict[Any, list[float]] = {kind: [] for kind in (*kinds, 1, all_threads)}
        with busy(neighbors):
            for _ in watch.progress.track(range(num_blocks), description=f"beside {neighbors}"):
                for kind, agent in agents.items():
                    times[kind] += block(agent)
                for threads in {1, all_threads}:
                    with one_thread(threads == 1):
                        seconds = seconds_of_training(config, episodes, torch.device("cpu"))
                    times[threads].append(seconds)
        for planner, execution in kinds:
            median, most, longest = 1e3 * np.percentile(times[planner, execution], [50, 99, 100])
            row = {"planner": planner, "execution": execution, "threads": 1}
            row |= {"busy_processes": neighbors, "num_acts": len(times[planner, execution])}
            row |= {"median_ms": median, "percentile_99_ms": most, "longest_ms": longest}
            rows.append(row)
        for threads in sorted({1, all_threads}):
            speed = TRAINING_STEPS / statistics.median(times[threads])
            row = {"threads": threads, "busy_processes": neighbors, "num_blocks": num_blocks}
            training.append(row | {"steps_per_second": speed})
    return {"agent": "pendulum", "rows": rows, "training": training}


def hardware_name(about: dict[str, Any], device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else about["hardware"]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


PARTS = {"act": measure_acts, "training": measure_training}


def documents(watch: Stopwatch, options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each file."""
    for part in (part for part in PARTS if part in options.parts):
        for task in options.tasks:
            measured = PARTS[part](TASKS[task], watch, options)
            yield f"{part}-{task.lower()}", {"task": task, **measured}
    if "load" in options.parts:
        yield "load", measure_load(watch, options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "load"], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that one act may take")
    parser.add_argument("--acts", type=int, default=400, help="of each kind, at most, under load")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks, for a test")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    about = provenance() | {"threads": torch.get_num_threads(), "device": options.device}
    machine = hardware_name(about, options.device)
    with tempfile.TemporaryDirectory() as cache, Progress() as progress:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that first plans compile
        watch = Stopwatch(torch.device(options.device), progress)
        settings = {"rounds": options.rounds, "clock": watch.clock, "provenance": about}
        for name, document in documents(watch, options):
            text = json.dumps(document | settings, indent=2) + "\n"
            write_text(options.out / f"{name}-{machine}.json", text)


if __name__ == "__main__":
    main()
