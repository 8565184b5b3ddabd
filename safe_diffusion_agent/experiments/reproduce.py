"""`trebi reproduce`: makes a study, from the datasets to the tables and the picture.

An interrupted reproduction continues.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.rollout import Progress
from safe_diffusion_agent.experiments.cards import measure_max_budget
from safe_diffusion_agent.experiments.catalog import study_of
from safe_diffusion_agent.experiments.jobs import Job, NamedProgress, Settings, collect_job, run_all
from safe_diffusion_agent.experiments.rows import (
    Row,
    RowRun,
    Scale,
    chosen_rows,
    dataset_id_of,
    is_standard_size,
    scale_of,
)
from safe_diffusion_agent.experiments.stages import PathLike, evaluate
from safe_diffusion_agent.experiments.study_results import write_evaluated, write_measured
from safe_diffusion_agent.experiments.trust import part_job

READABLE = 60  # longest name of a folder that spells the settings out


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study runs, and how large it is.

    Attributes:
        title: Of the study.
        scale: How large.
        runs: Its rows.
    """

    title: str
    scale: Scale
    runs: list[RowRun]


def plan(
    name: str,
    *,
    runs: PathLike = "runs/reproduce",
    scale: str = "small",
    tasks: Sequence[str] | None = None,
    qualities: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    num_episodes: int | None = None,
    max_steps: int | None = None,
    device: str = "auto",
) -> Plan:
    """Returns what `reproduce` runs, and runs nothing.

    Args:
        name: One of `STUDIES`.
        runs: Folder of the jobs.
        scale: One of `SCALES`; our own studies have a scale of their own.
        tasks: Only these tasks. None: all of the study.
        qualities: Only datasets of these qualities. None: all of the study.
        methods: These methods instead of the study's, as `method` or `method:preset`.
        seeds: Seeds of the trainings, instead of the study's.
        num_episodes: Per budget and seed, instead of the study's.
        max_steps: Steps that a dataset, and its SAC, are cut to, instead of the scale's.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.

    Raises:
        UnknownNameError: There is no such study, scale, task, method, preset or setting.
        ValueError: The study has none of these datasets.
    """
    study = study_of(name)
    size = study.scale or scale_of(scale)
    size = replace(
        size,
        seeds=tuple(seeds or size.seeds),
        num_episodes=num_episodes or size.num_episodes,
        max_steps=max_steps or size.max_steps,
    )
    rows = chosen_rows(
        study,
        size,
        tasks=tasks,
        qualities=qualities,
        methods=methods,
        seeds=seeds,
        num_episodes=num_episodes,
    )
    runs_of = [_run(row, Path(runs), device) for row in rows]
    return Plan(title=study.title, scale=size, runs=runs_of)


def _run(row: Row, runs: Path, device: str) -> RowRun:
    dataset_id = dataset_id_of(row.dataset)
    changed = f"{row.method}-{row.preset}{_spelled(row.settings)}"
    folder = runs / dataset_id.replace("/", "-") / changed / f"seed-{row.seed}"
    evaluation = EvaluationConfig(**row.evaluation)
    kind = "random" if evaluation.random_ratios else "ratios"
    numbers = f"{evaluation.num_episodes}-{evaluation.control_interval}-from-{evaluation.seed}"
    name = "measured" if row.parts else f"{kind}-{numbers}{_spelled(row.load_settings)}"
    return RowRun(row=row, dataset_id=dataset_id, folder=folder, out=folder / name, device=device)


def _spelled(settings: Settings) -> str:
    """Settings as part of a file's name: spelled out, or a digest of them."""
    text = "".join(f"-{name}={value}" for name, value in settings.items())
    if len(text) <= READABLE and not set(text) & set(" /"):
        return text
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def jobs_of(run: RowRun) -> list[Job]:
    """Returns the jobs of a row: its evaluation, or one for each part that is measured."""
    if run.row.parts:
        return [part_job(run, part) for part in run.row.parts]
    job = Job(
        name=run.name,
        group=str(run.folder),
        is_done=partial(_is_evaluated, run),
        run=partial(_evaluate, run),
        device=run.device,
    )
    return [job]


def _evaluate(run: RowRun, progress: Progress | None) -> None:
    config = EvaluationConfig(**run.row.evaluation)
    agent, env_id = run.train(progress), run.row.dataset.env_id
    evaluate(agent, run.out, env_id=env_id, config=config, progress=progress)


def _is_evaluated(run: RowRun) -> bool:
    """Whether the results match the row; its agent need not be there."""
    path = run.out / "results.json"
    if not path.exists():
        return False
    stored = json.loads(path.read_text())
    evaluation = asdict(EvaluationConfig(**run.row.evaluation))
    evaluation |= {
        "ratios": list(evaluation["ratios"]),
        "max_budget": stored["evaluation"]["max_budget"],
    }
    wanted = [run.row.config_values(), evaluation]
    return wanted == [stored["agent"]["config"], stored["evaluation"]]


def reproduce(
    name: str,
    *,
    out: PathLike = "results/reproduce",
    workers: int = 1,
    ray_address: str | None = None,
    progress: NamedProgress | None = None,
    **options: Any,
) -> Path:
    """Makes a study, with its numbers and its picture.

    The folder `out/<name>` gets `episodes.csv` (one evaluated episode per line), `summary.csv` (one
    budget per line), `overall.csv` (one method), the picture, and `about.json`: what made them. If
    something else is measured, there is a JSON file per task.

    Args:
        name: One of `STUDIES`.
        out: Folder of the results.
        workers: Processes on this machine; 1 runs all in this process.
        ray_address: Runs the rows on this Ray cluster instead; `"local"` starts one here.
        progress: Called as `progress(name, done, total, **values)`.
        **options: Those of `plan`.

    Returns:
        The folder.

    Raises:
        UnknownNameError: There is no such study, scale, task, method, preset or setting.
        ValueError: The study has none of these datasets, or Ray is asked for and not installed.
    """
    planned = plan(name, **options)
    datasets = {run.dataset_id: run.row.dataset for run in planned.runs}
    collections = [collect_job(config, dataset_id) for dataset_id, config in datasets.items()]
    run_all(collections, workers=workers, progress=progress)
    for dataset_id, config in datasets.items():
        if not is_standard_size(config):
            measure_max_budget(dataset_id)  # the paper's is for data of its size
    jobs = [job for run in planned.runs for job in jobs_of(run)]
    run_all(jobs, workers=workers, ray_address=ray_address, progress=progress)
    folder = Path(out) / name
    write = write_measured if planned.runs[0].row.parts else write_evaluated
    about = {"figure": name, "title": planned.title, "scale": asdict(planned.scale)}
    write(folder, planned.runs, about)
    return folder
