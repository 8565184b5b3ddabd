"""How long one `act` takes, and how many samples a second are trained on, next to the plain way.

    python benchmarks/latency.py                       # HalfCheetah's and Pendulum's dimensions
    python benchmarks/latency.py --rounds 9 --device cuda
    python benchmarks/latency.py --small --out /tmp    # tiny networks: does it run?

Everything is timed in turns in one run, with random weights; medians. Beside it stand the plain way
(plain.py: how the reference code plans and trains) and the floor: floating point operations and
bytes of weights, divided by what convolutions, matrix products and copies reach in the same run.
Writes results/latency/TASK-HARDWARE.json and .md.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from latency_planners import SMALL, TASKS, Case, cases, ceilings, floor_milliseconds
from latency_report import as_markdown
from latency_training import training_cases
from rich.progress import Progress

from safe_diffusion_agent.provenance import provenance

RESULTS = Path(__file__).parent.parent / "results" / "latency"
BATCHES = (1, 16, 256)


def in_turns(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    wait: Callable[[], None],
    progress: Progress,
    description: str,
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` of each, one after the other; a first one is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    bar = progress.add_task(description, total=len(calls) * (rounds + 1))
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            wait()
            if turn > 0:
                seconds[name].append(time.perf_counter() - begin)
            progress.advance(bar)
    return seconds


def affordable(case: Case, limit: float, wait: Callable[[], None]) -> list[int]:
    """Batch sizes that take at most `limit` seconds, by the time of the smallest."""
    case.act(1)
    begin = time.perf_counter()
    case.act(1)
    wait()
    alone = time.perf_counter() - begin
    if case.one_at_a_time:
        return [1]
    return [batch for batch in BATCHES if batch == 1 or alone * batch / 2 <= limit]


def plan_rows(task: str, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """One task: every planner at every batch size, and the ceilings, in turns."""
    device = torch.device(options.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    all_cases = cases(TASKS[task], device, options.small)
    calls: dict[str, Callable[[], Any]] = {}
    for case in all_cases:
        for batch in affordable(case, options.limit, wait):
            calls[f"{case.name}|{batch}"] = lambda case=case, batch=batch: case.act(batch)
    of_machine = ceilings(device)
    calls |= {f"ceiling|{name}": ceiling.call for name, ceiling in of_machine.items()}
    seconds = in_turns(calls, options.rounds, wait, progress, f"{task}: act")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    reached = {
        name: ceiling.amount / medians[f"ceiling|{name}"] for name, ceiling in of_machine.items()
    }
    rows = []
    for case in all_cases:
        keys = {batch: f"{case.name}|{batch}" for batch in BATCHES}
        times = {batch: 1e3 * medians[key] for batch, key in keys.items() if key in medians}
        rows.append(
            {
                "planner": case.name,
                "compared_with": case.compared_with,
                "milliseconds": times,
                "gigaflop": case.gigaflop(),
                "floor_milliseconds": floor_milliseconds(case, reached),
                "guidance_megabytes_per_trajectory": case.guidance_bytes() / 1e6,
                "weights_megabytes": case.weight_bytes() / 1e6,
            }
        )
    return {"task": task, "rows": rows, "ceilings": reached}


def training_rows(task: str, options: argparse.Namespace, progress: Progress) -> list[dict]:
    """Samples per second: ours and the plain way, in turns."""
    rows = []
    device = torch.device(options.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for case in training_cases(TASKS[task], device, options.small):
        calls = {"plain": case.plain, "ours": case.ours}
        description = f"{task}: train {case.networks}"
        seconds = in_turns(calls, options.training_rounds, wait, progress, description)
        rows.append(
            {"networks": case.networks}
            | {
                f"{name}_samples_per_second": case.num_samples / statistics.median(times)
                for name, times in seconds.items()
            }
        )
    return rows


def hardware_name(about: dict[str, Any], device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else about["hardware"]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training-rounds", type=int, default=9)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that one act may take")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help=f"for a test: {SMALL}")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    about = provenance() | {"threads": torch.get_num_threads(), "device": options.device}
    options.out.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        for task in options.tasks:
            document = {
                **plan_rows(task, options, progress),
                "training": training_rows(task, options, progress),
                "rounds": options.rounds,
                "provenance": about,
            }
            path = options.out / f"{task.lower()}-{hardware_name(about, options.device)}.json"
            path.write_text(json.dumps(document, indent=2) + "\n")
            path.with_suffix(".md").write_text(as_markdown(document))


if __name__ == "__main__":
    main()
