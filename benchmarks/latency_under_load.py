"""How long one `act` takes at worst, alone and beside processes that keep every core busy; and how
many steps a second a training makes.

    python benchmarks/latency_under_load.py                       # the agent of the package
    python benchmarks/latency_under_load.py --planners realtime --acts 20 --out /tmp

One state at a time, wall time, on one thread (what agents with small networks do) and on as many as
PyTorch takes. Both are timed in turns, in blocks of acts or of seconds; then again beside the other
processes. The training is that of `quick`'s networks.
Writes results/latency/load-HARDWARE.json and .md.
"""

import argparse
import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from fast_presets import preset_difference
from latency import RESULTS, hardware_name
from latency_planners import TASKS
from latency_training import our_training, random_episodes
from markdown_table import rounded, table, write_report
from rich.progress import Progress

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.compute import one_thread
from safe_diffusion_agent.methods.trebi.presets import preset_config
from safe_diffusion_agent.storage import provenance

PLANNERS = ("frontier", "realtime")
EXECUTIONS = ("eager", "compiled")
BLOCK, BLOCK_SECONDS = 20, 2.0  # acts, at most, before the next one's turn
TRAINING_BLOCK = 30  # optimiser steps


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


def threads_of(one: bool) -> Any:
    """Agents plan on one thread by themselves; or else on all."""
    if one:
        return contextlib.nullcontext()
    return mock.patch(
        "safe_diffusion_agent.methods.trebi.agent.one_thread", lambda _: contextlib.nullcontext()
    )


def block(agent: TrebiAgent) -> list[float]:
    """Seconds of one act after the other."""
    obs, budget = np.zeros(agent.task.obs_dim), agent.task.max_budget / 2
    seconds: list[float] = []
    while len(seconds) < BLOCK and sum(seconds) < BLOCK_SECONDS:
        begin = time.perf_counter()
        agent.act(obs, budget, agent.task.max_episode_steps)
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_training(num_blocks: int, progress: Progress) -> list[dict[str, Any]]:
    """One row per number of threads and load."""
    task, num_cores = TASKS["HalfCheetah"], os.cpu_count() or 1
    config = preset_config("quick", ema_start=0)
    train = our_training(config, random_episodes(task), task, torch.device("cpu"), TRAINING_BLOCK)
    train()
    rows = []
    for neighbors in (0, num_cores):
        seconds: dict[int, list[float]] = {1: [], torch.get_num_threads(): []}
        with busy(neighbors):
            for _ in progress.track(range(num_blocks), description=f"train beside {neighbors}"):
                for num_threads, times in seconds.items():
                    with one_thread(num_threads == 1):
                        begin = time.perf_counter()
                        train()
                        times.append(time.perf_counter() - begin)
        for num_threads, times in seconds.items():
            rows.append(
                {
                    "threads": num_threads,
                    "busy_processes": neighbors,
                    "num_blocks": num_blocks,
                    "steps_per_second": TRAINING_BLOCK / float(np.median(times)),
                }
            )
    return rows


def measure(
    path: str, planners: list[str], num_acts: int, progress: Progress
) -> list[dict[str, Any]]:
    """One row per planner, execution, number of threads and load."""
    num_cores = os.cpu_count() or 1
    cases = [(p, e, one) for p in planners for e in EXECUTIONS for one in (True, False)]
    agents = {}
    for case in progress.track(cases, description="first plans"):
        planner, execution, one = case
        settings = preset_difference(planner) | {"execution": execution}
        agents[case] = TrebiAgent.load(path, device="cpu", **settings)
        with threads_of(one):
            block(agents[case])
    rows = []
    for neighbors in (0, num_cores):
        seconds: dict[tuple, list[float]] = {case: [] for case in cases}
        with busy(neighbors):
            for _ in progress.track(
                range(-(-num_acts // BLOCK)), description=f"beside {neighbors} processes"
            ):
                for case, agent in agents.items():
                    with threads_of(case[2]):
                        seconds[case] += block(agent)
        for (planner, execution, one), times in seconds.items():
            median, most, longest = 1e3 * np.percentile(times, [50, 99, 100])
            rows.append(
                {
                    "planner": planner,
                    "execution": execution,
                    "threads": 1 if one else torch.get_num_threads(),
                    "busy_processes": neighbors,
                    "num_acts": len(times),
                    "median_ms": median,
                    "percentile_99_ms": most,
                    "longest_ms": longest,
                }
            )
    return rows


def as_markdown(document: dict[str, Any]) -> str:
    about = document["provenance"]
    header = ["planner", "execution", "busy processes", "threads", "acts"]
    header += ["median, ms", "99 %", "longest"]
    cells = [
        [
            f"`{row['planner']}`",
            row["execution"],
            str(row["busy_processes"]),
            str(row["threads"]),
            str(row["num_acts"]),
            *(rounded(row[name]) for name in ("median_ms", "percentile_99_ms", "longest_ms")),
        ]
        for row in sorted(
            document["rows"], key=lambda r: (r["busy_processes"], r["planner"], r["execution"])
        )
    ]
    made = (
        f"Made by `{about['command']}` on {about['hardware']}; torch {about['versions']['torch']}. "
        f"The agent `{document['agent']}`, one state, wall time."
    )
    parts = [
        "# Time per `act` beside other processes",
        made,
        table(header, cells),
        "Plans for a few states take one thread by themselves; more were forced to compare.",
        training_table(document["training"]),
        f"Training of `quick` on HalfCheetah's dimensions, median of blocks of {TRAINING_BLOCK} "
        "steps.",
    ]
    return "\n\n".join(parts) + "\n"


def training_table(rows: list[dict[str, Any]]) -> str:
    names = ("busy_processes", "threads", "num_blocks", "steps_per_second")
    cells = [[rounded(row[name]) for name in names] for row in rows]
    return table(["busy processes", "threads", "blocks", "training steps/s"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agent", default="pendulum", help="name or folder of a frontier agent")
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    parser.add_argument("--acts", type=int, default=400, help="of each kind, at most")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with Progress() as progress:
        document = {
            "agent": options.agent,
            "rows": measure(options.agent, options.planners, options.acts, progress),
            "training": measure_training(-(-options.acts // BLOCK), progress),
            "provenance": provenance(),
        }
    path = options.out / f"load-{hardware_name(document['provenance'], 'cpu')}"
    write_report(path, document, as_markdown)


if __name__ == "__main__":
    main()
