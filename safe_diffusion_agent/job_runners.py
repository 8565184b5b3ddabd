"""Runs the jobs of a figure: in this process, in several of this machine, or on a Ray cluster."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from safe_diffusion_agent.pipeline import Progress
from safe_diffusion_agent.reproduction_jobs import Job, run_job


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    ray_address: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Runs the jobs that are not done.

    Args:
        jobs: The jobs.
        workers: Processes on this machine; 1 runs them in this process.
        ray_address: Runs them on this Ray cluster instead, `"auto"` or `"host:port"`; `"local"`
            starts one of `workers` CPUs here. The folders of the jobs and Minari's datasets have
            to be on file systems that all its machines share.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`. Jobs on Ray get a GPU each with `"cuda"` only.
        progress: Called at first, and after every job, as `progress(done, total)`.

    Raises:
        ValueError: A Ray cluster is asked for, and Ray is not installed.
    """
    groups: dict[Path, list[Job]] = {}  # those of one folder share a training
    for job in jobs:
        if not job.done:
            groups.setdefault(job.folder, []).append(job)
    missing = list(groups.values())
    finished: Iterator[int]
    if ray_address is not None:
        finished = _on_ray(missing, ray_address, workers, device)
    elif workers == 1:
        finished = map(_run_group, missing, repeat(device))
    else:
        finished = _in_processes(missing, workers, device)
    done = len(jobs) - sum(map(len, missing))
    if progress is not None and missing:
        progress(done, len(jobs))  # the first job takes a while
    for number in finished:
        done += number
        if progress is not None:
            progress(done, len(jobs))


def _run_group(jobs: Sequence[Job], device: str) -> int:
    """Runs jobs one after the other; returns how many."""
    for job in jobs:
        run_job(job, device)
    return len(jobs)


def _in_processes(groups: Sequence[list[Job]], workers: int, device: str) -> Iterator[int]:
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(_run_group, group, device) for group in groups]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error no further job is begun


def _on_ray(groups: Sequence[list[Job]], address: str, workers: int, device: str) -> Iterator[int]:
    try:
        import ray
    except ImportError:
        raise ValueError("Ray is not installed: pip install 'safe-diffusion-agent[ray]'.") from None
    local = address == "local"
    ray.init(address=address, num_cpus=workers if local else None, include_dashboard=False)
    try:
        task: Any = ray.remote(num_cpus=1, num_gpus=int(device.startswith("cuda")))(_run_group)
        waiting = [task.remote(group, device) for group in groups]
        while waiting:
            (ready, *_), waiting = ray.wait(waiting)
            yield ray.get(ready)
    finally:
        ray.shutdown()
