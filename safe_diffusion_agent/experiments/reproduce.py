"""`trebi reproduce`: makes a study, from the datasets to the tables and the picture.

An interrupted reproduction continues.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.rollout import Progress
from safe_diffusion_agent.experiments.cards import measure_max_budget
from safe_diffusion_agent.experiments.catalog import study_of
from safe_diffusion_agent.experiments.jobs import Job, NamedProgress, Settings, collect_job, run_all
from safe_diffusion_agent.experiments.rows import (
    Choice,
    Row,
    RowRun,
    dataset_id_of,
    is_standard_size,
)
from safe_diffusion_agent.experiments.rule import Rule
from safe_diffusion_agent.experiments.stages import PathLike, evaluate
from safe_diffusion_agent.experiments.study_results import write_evaluated, write_measured
from safe_diffusion_agent.experiments.trust import part_job
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import read_json

READABLE = 60  # longest name of a folder that spells the settings out
RUNS = Path("runs/reproduce")


def plan(name: str, *, runs: PathLike = RUNS, device: str = "auto", **choice: Any) -> list[RowRun]:
    """Returns what `reproduce` runs, and runs nothing.

    Args:
        name: One of `STUDIES`.
        runs: Folder of the jobs.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        **choice: What is made of the study, as of `Choice`.

    Raises:
        UnknownNameError: There is no such study, scale, task, method, preset or setting.
        ValueError: The study has none of these datasets.
    """
    rows = Choice(**choice).rows_of(study_of(name))
    return [_run(row, Path(runs), device) for row in rows]


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
    evaluation = Job(
        name=run.name,
        group=str(run.folder),
        is_done=partial(_is_evaluated, run),
        run=partial(_evaluate, run),
        device=run.device,
    )
    return [evaluation]


def _evaluate(run: RowRun, progress: Progress | None) -> None:
    config = EvaluationConfig(**run.row.evaluation)
    agent, env_id = run.train(progress), run.row.dataset.env_id
    evaluate(agent, run.out, env_id=env_id, config=config, progress=progress)


def _is_evaluated(run: RowRun) -> bool:
    """Whether the results match the row; its agent need not be there."""
    path = run.out / "results.json"
    if not path.exists():
        return False
    stored = read_json(path)
    wanted = json.loads(json.dumps(asdict(EvaluationConfig(**run.row.evaluation))))
    if wanted["max_budget"] is None:
        wanted["max_budget"] = stored["evaluation"]["max_budget"]  # that of the dataset
    same = stored["agent"]["config"] == run.row.config_values() and stored["evaluation"] == wanted
    return bool(same)


def reproduce(
    name: str,
    *,
    out: PathLike = "results/reproduce",
    runs: PathLike = RUNS,
    device: str = "auto",
    workers: int = 1,
    ray_address: str | None = None,
    progress: NamedProgress | None = None,
    **choice: Any,
) -> Path:
    """Makes a study, with its numbers and its picture.

    The folder `out/<name>` gets `episodes.csv` (one evaluated episode per line), `summary.csv` (one
    budget per line), `overall.csv` (one method), the picture, and `about.json`: what made them. If
    something else is measured, there is a JSON file per task.

    Args:
        name: One of `STUDIES`.
        out: Folder of the results.
        runs: Folder of the jobs.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        workers: Processes on this machine; 1 runs all in this process.
        ray_address: Runs the rows on this Ray cluster instead; `"local"` starts one here.
        progress: Called as `progress(name, done, total, **values)`.
        **choice: What is made of the study, as of `Choice`.

    Returns:
        The folder.

    Raises:
        UnknownNameError: There is no such study, scale, task, method, preset or setting.
        ValueError: The study has none of these datasets, or Ray is asked for and not installed.
    """
    rows, study, folder = plan(name, runs=runs, device=device, **choice), study_of(name), Path(out)
    datasets = {run.dataset_id: run.row.dataset for run in rows}
    collections = [collect_job(config, dataset_id) for dataset_id, config in datasets.items()]
    run_all(collections, workers=workers, progress=progress)
    for dataset_id, config in datasets.items():
        if not is_standard_size(config):
            measure_max_budget(dataset_id)  # the paper's is for data of its size
    rules = _rules(rows, Path(runs))
    jobs = [rule.job() for rule in rules] + [job for run in rows for job in jobs_of(run)]
    run_all(jobs, workers=workers, ray_address=ray_address, progress=progress)
    about: dict[str, Any] = {"figure": name, "title": study.title}
    about["scale"] = asdict(Choice(**choice).scale_of(study))
    if rows[0].row.parts:
        write_measured(folder / name, rows, about)
    else:
        write_evaluated(folder / name, rows, about, rules)
    return folder / name


def _rules(rows: Sequence[RowRun], runs: Path) -> list[Rule]:
    """A rule for each dataset that has an expert, on the start states of its first row."""
    first: dict[str, RowRun] = {}
    for run in rows:
        if run.row.dataset.expert is not None and METHODS[run.row.method].constrained:
            first.setdefault(run.dataset_id, run)
    return [
        Rule(
            dataset=run.row.dataset,
            dataset_id=dataset_id,
            evaluation=run.row.evaluation,
            folder=runs / dataset_id.replace("/", "-") / "rule" / run.out.name,
        )
        for dataset_id, run in first.items()
    ]
