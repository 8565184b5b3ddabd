"""The jobs that a figure of the paper needs: trainings with their evaluations.

The result of a job is a file: what is there already is not made again.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.collection import CollectConfig, default_dataset_id
from safe_diffusion_agent.data.manifest import MANIFEST, capped
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments.catalog import PaperFigure, Scale
from safe_diffusion_agent.experiments.stages import Progress, evaluate, train
from safe_diffusion_agent.methods.table import METHODS, load_agent, method_of
from safe_envs import task_spec

NUM_RANDOM_BUDGETS = 100  # Lin et al. 2023, App. E


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training with its evaluation.

    Attributes:
        collect: What to collect.
        dataset_id: Minari id of the dataset.
        method: One of `METHODS`.
        label: What it is called in figures and tables.
        preset: Of the method.
        settings: Settings of the training that differ from the preset's.
        planner: Settings that the trained agent is loaded with.
        seed: Of the training.
        evaluation: What to evaluate.
        folder: Where it keeps its files; jobs that differ in what follows the training share it.
    """

    collect: CollectConfig
    dataset_id: str
    method: str
    label: str
    preset: str
    settings: dict[str, Any]
    planner: dict[str, Any]
    seed: int
    evaluation: EvaluationConfig
    folder: Path

    @property
    def task(self) -> str:
        """Task and quality of the dataset."""
        return f"{self.collect.env_id} {self.collect.quality}"

    @property
    def results(self) -> Path:
        """Folder of the evaluation."""
        evaluation = self.evaluation
        kind = "random" if evaluation.random_ratios else "ratios"
        changed = "".join(f"-{name}={value:g}" for name, value in self.planner.items())
        name = f"{kind}-{evaluation.num_episodes}-{evaluation.control_interval}{changed}"
        return self.folder / name

    @property
    def done(self) -> bool:
        """Whether its results are there, of the settings as they are now."""
        path = self.results / "results.json"
        if not path.exists():
            return False
        document: dict[str, Any] = json.loads(path.read_text())
        stored = document["agent"]["config"], document["evaluation"]["seed"]
        settings = self.settings | self.planner
        config = METHODS[self.method].config(self.preset, self.collect.env_id, **settings)
        return stored == (json.loads(json.dumps(asdict(config))), self.evaluation.seed)


def plan(
    figure: PaperFigure,
    scale: Scale,
    runs: Path,
    *,
    tasks: Sequence[str] | None = None,
    qualities: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> list[Job]:
    """The jobs of a figure.

    Args:
        figure: The figure.
        scale: How large.
        runs: Folder of the jobs.
        tasks: Only these tasks. None: all of the figure.
        qualities: Only datasets of these qualities. None: all of the figure.
        methods: These methods instead of the figure's, as `method` or `method:preset`.

    Raises:
        UnknownNameError: There is no such method or task.
        ValueError: The figure has none of these datasets.
    """
    chosen = methods or figure.methods
    jobs = []
    for (env_id, quality), given, variant, planner_variant, interval, seed in product(
        _datasets(figure, tasks, qualities),
        chosen,
        figure.variants,
        figure.planner_variants,
        figure.control_intervals,
        scale.seeds,
    ):
        method, _, preset = given.partition(":")
        method_of(method)
        preset = preset or scale.preset
        config, dataset_id = _dataset(env_id, quality, scale)
        every = "" if figure.control_intervals == (1,) else f"every {interval}"
        variants = (variant, planner_variant, every)
        jobs.append(
            Job(
                collect=config,
                dataset_id=dataset_id,
                method=method,
                label=_label(given, variants, alone=len(chosen) == 1),
                preset=preset,
                settings=dict(figure.variants[variant]),
                planner=dict(figure.planner_variants[planner_variant]),
                seed=seed,
                evaluation=_evaluation(method, figure, scale, seed, interval),
                folder=runs
                / dataset_id.replace("/", "-")
                / preset
                / method
                / variant.replace(" ", "")
                / f"seed-{seed}",
            )
        )
    return jobs


def _label(given: str, variants: Sequence[str], *, alone: bool) -> str:
    """What tells a job from the others of its figure; a method that is alone needs no name."""
    differing = [name for name in variants if name]
    return ", ".join(differing if alone and differing else [given, *differing])


def _datasets(
    figure: PaperFigure, tasks: Sequence[str] | None, qualities: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Those of the figure that are wanted."""
    wanted = None if tasks is None else [task_spec(task).id for task in tasks]
    datasets = [
        (env_id, quality)
        for env_id, quality in figure.datasets
        if (wanted is None or env_id in wanted) and (qualities is None or quality in qualities)
    ]
    if not datasets:
        known = ", ".join(f"{env_id} {quality}" for env_id, quality in figure.datasets)
        raise ValueError(f"The figure has none of these datasets. It has: {known}.")
    return datasets


def _dataset(env_id: str, quality: str, scale: Scale) -> tuple[CollectConfig, str]:
    """What to collect, and its Minari id; a dataset that is cut short has another one."""
    config = CollectConfig(env_id=env_id, quality=quality)
    for known in MANIFEST:
        if (known.env_id, known.quality) == (env_id, quality):
            config = known
    dataset_id, (cut,) = default_dataset_id(env_id, quality), capped([config], scale.max_steps)
    return cut, dataset_id if cut == config else dataset_id.replace("-v0", f"-{cut.sac_steps}-v0")


def _evaluation(
    method: str, figure: PaperFigure, scale: Scale, seed: int, interval: int
) -> EvaluationConfig:
    """Seeds of trainings have start states of their own; lines need but one budget."""
    if figure.random_ratios:
        return EvaluationConfig(num_episodes=NUM_RANDOM_BUDGETS, seed=seed, random_ratios=True)
    config = EvaluationConfig(num_episodes=scale.num_episodes, seed=seed, control_interval=interval)
    return config if METHODS[method].constrained else replace(config, ratios=(1.0,))


def run_job(job: Job, device: str = "auto") -> None:
    """Trains and evaluates; each is skipped if it is done."""
    agent: Agent = train(
        job.dataset_id,
        job.folder,
        method=job.method,
        preset=job.preset,
        seed=job.seed,
        settings=job.settings,
        device=device,
    )
    if job.planner:
        agent = load_agent(job.folder, device=device, **job.planner)
    evaluate(agent, job.results, env_id=job.collect.env_id, config=job.evaluation)


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
