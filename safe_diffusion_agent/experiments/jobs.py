"""Jobs, and the one runner of them all: in this process, in several, or on a Ray cluster.

The results of a job are files. A job whose results exist is not run again, so that whatever was
interrupted continues when it is started once more.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from safe_diffusion_agent.data.collection import collect, is_collected
from safe_diffusion_agent.data.qualities import CollectConfig, default_state_dir
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments.stages import evaluate, stored_results, train
from safe_diffusion_agent.experiments.trainings import is_trained
from safe_diffusion_agent.methods.table import load_agent, method_of

NamedProgress = Callable[..., None]
Settings = Mapping[str, Any]
TELL_SECONDS = 0.2  # between two reports of a job in another process


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work whose results are files. Its functions are called in other processes, too.

    Attributes:
        name: Of its progress bar.
        group: Jobs of one group share files, and run one after the other.
        is_done: Says whether the results exist and match the current settings.
        run: Makes the results; is given `progress=`, to call as `progress(done, total, **values)`.
        device: Where it computes; on Ray, a job on `"cuda"` gets a GPU.
    """

    name: str
    group: str
    is_done: Callable[[], bool]
    run: Callable[..., Any]
    device: str = "cpu"


def collect_job(
    config: CollectConfig,
    dataset_id: str,
    *,
    state_dir: Path | None = None,
    overwrite: bool = False,
) -> Job:
    """Returns the job of `collect`, with its options; datasets of one SAC share its training."""
    options = {"dataset_id": dataset_id, "state_dir": state_dir, "overwrite": overwrite}
    return Job(
        name=dataset_id,
        group=str(state_dir or default_state_dir(config)),
        is_done=partial(is_collected, dataset_id, config, overwrite=overwrite),
        run=partial(collect, config, **options),  # type: ignore[arg-type]
    )


def train_job(source: str, folder: Path, *, device: str = "auto", **options: Any) -> Job:
    """Returns the job of `train`, which has the other options."""
    return Job(
        name=str(folder),
        group=str(folder),
        is_done=partial(is_trained, source, folder, **options),
        run=partial(train, source, folder, device=device, **options),
        device=device,
    )


def config_values(method: str, preset: str, env_id: str | None, settings: Settings) -> Any:
    """Returns the config of a method as JSON values."""
    return json.loads(json.dumps(asdict(method_of(method).config(preset, env_id, **settings))))


def evaluate_job(
    agent: str,
    out: Path,
    config: EvaluationConfig,
    *,
    env_id: str | None = None,
    settings: Settings | None = None,
    device: str = "auto",
) -> Job:
    """Returns the job of `evaluate`.

    Args:
        agent: Folder of a run, or name of a pretrained agent.
        out: Folder of the results.
        config: What to evaluate.
        env_id: Task to evaluate on. None takes the agent's.
        settings: Settings to load the agent with.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
    """
    load = partial(load_agent, agent, device=device, **(settings or {}))
    options: dict[str, Any] = {"env_id": env_id, "config": config}
    return Job(
        name=str(out),
        group=agent,
        is_done=partial(_is_evaluated, load, out, **options),
        run=partial(_evaluate, load, out, **options),
        device=device,
    )


def _is_evaluated(load: Callable[[], Any], out: Path, **options: Any) -> bool:
    return stored_results(load(), out, **options) is not None


def _evaluate(load: Callable[[], Any], out: Path, **options: Any) -> None:
    evaluate(load(), out, **options)


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    ray_address: str | None = None,
    progress: NamedProgress | None = None,
) -> None:
    """Runs the jobs that are not done; after an error, no further one is begun.

    Args:
        jobs: The jobs.
        workers: Processes on this machine; 1 runs them in this process.
        ray_address: Runs them on this Ray cluster instead, `"auto"` or `"host:port"`; `"local"`
            starts one of `workers` CPUs here. The folders of the jobs and Minari's datasets have
            to be on file systems that all its machines share.
        progress: Called as `progress(name, done, total, **values)`, for each job that runs on this
            machine, and, under the name "jobs", for several jobs together.

    Raises:
        ValueError: There are no processes, or Ray is asked for and not installed.
    """
    if workers < 1:
        raise ValueError(f"jobs should be positive. Received {workers}.")
    tell = progress or _tell_nobody
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if not job.is_done():
            groups.setdefault(job.group, []).append(job)
    missing = list(groups.values())
    if not missing:
        return
    finished: Iterator[int]
    if ray_address is not None:
        finished = _on_ray(missing, ray_address, workers)
    elif workers == 1:
        finished = (_run_group([job], tell) for group in missing for job in group)
    else:
        finished = _in_processes(missing, workers, tell)
    done = len(jobs) - sum(map(len, missing))
    tell_jobs = partial(tell if len(jobs) > 1 else _tell_nobody, "jobs", total=len(jobs))
    tell_jobs(done)  # the first job takes a while
    for number in finished:
        done += number
        tell_jobs(done)


def _tell_nobody(*_: Any, **__: Any) -> None:
    """Takes the place of a progress that nobody wants."""


@dataclass
class _Queued:
    """Puts the progress of a process into a queue, a few times a second."""

    queue: Any
    told_at: float = 0.0

    def __call__(self, name: str, done: int, total: int, **values: float) -> None:
        now = time.monotonic()
        if now - self.told_at > TELL_SECONDS or done == total:
            self.told_at = now
            self.queue.put((name, done, total, values))


def _run_group(jobs: Sequence[Job], tell: NamedProgress) -> int:
    """Runs jobs one after the other; returns how many."""
    for job in jobs:
        job.run(progress=partial(tell, job.name))
        tell(job.name, 1, 1)
    return len(jobs)


def _in_processes(groups: Sequence[list[Job]], workers: int, tell: NamedProgress) -> Iterator[int]:
    context = get_context("spawn")  # a fork of a process that has used a GPU cannot train
    one_thread = (torch.set_num_threads, (1,))
    with context.Manager() as manager, ProcessPoolExecutor(workers, context, *one_thread) as pool:
        queue = manager.Queue()
        waiting: set[Future[int]] = {
            pool.submit(_run_group, group, _Queued(queue)) for group in groups
        }
        try:
            while waiting:
                finished, waiting = wait(waiting, TELL_SECONDS, FIRST_COMPLETED)
                while not queue.empty():
                    name, done, total, values = queue.get()
                    tell(name, done, total, **values)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _on_ray(groups: Sequence[list[Job]], address: str, workers: int) -> Iterator[int]:
    try:
        import ray
    except ImportError:
        raise ValueError("Ray is not installed: pip install 'safe-diffusion-agent[ray]'.") from None
    local = address == "local"
    ray.init(address=address, num_cpus=workers if local else None, include_dashboard=False)
    try:
        waiting = []
        for group in groups:
            num_gpus = int(any(job.device.startswith("cuda") for job in group))
            task: Any = ray.remote(num_cpus=1, num_gpus=num_gpus)(_run_group)
            waiting.append(task.remote(group, _tell_nobody))
        while waiting:
            (ready, *_), waiting = ray.wait(waiting)
            yield ray.get(ready)
    finally:
        ray.shutdown()
