"""Does an agent know whether it can keep a budget? Each part of the answer is a job."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.evaluation.rollout import Progress
from safe_diffusion_agent.experiments.forecasts import agent_forecasts, behavior_forecasts
from safe_diffusion_agent.experiments.jobs import Job
from safe_diffusion_agent.experiments.rows import RowRun
from safe_diffusion_agent.experiments.trust_measures import (
    RISK,
    adaptive,
    cuts,
    guard,
    moving_budgets,
    risk_curve,
    shifted_risk_curves,
)
from safe_diffusion_agent.methods.table import load_agent
from safe_diffusion_agent.storage import read_json, write_text

# Each is called with the agent and the number of episodes per setting.
PARTS: Mapping[str, Callable[[Any, int], Any]] = {
    "risk": risk_curve,
    "forecasts": lambda agent, num: agent_forecasts(agent, 20 * num, RISK),
    "behavior": lambda agent, num: behavior_forecasts(agent, 20 * num),
    "moving": moving_budgets,
    "shifts": shifted_risk_curves,
    "guard": guard,
    "adaptive": adaptive,
    "cuts": cuts,
}


def part_job(run: RowRun, part: str) -> Job:
    """Returns the job that measures one part of the agent of a row, after its training."""
    path = _file(run, part)
    return Job(
        name=f"{run.name}, {part}",
        group=str(run.folder),
        is_done=partial(_is_measured, run, path),
        run=partial(_measure, run, part),
        device=run.device,
    )


def _file(run: RowRun, part: str) -> Path:
    return run.out / f"{part}-{run.row.evaluation['num_episodes']}.json"


def _is_measured(run: RowRun, path: Path) -> bool:
    if not path.exists():
        return False
    return bool(read_json(path)["config"] == run.row.config_values())


def _measure(run: RowRun, part: str, progress: Progress | None) -> None:
    agent = run.train(progress)
    value = PARTS[part](agent, run.row.evaluation["num_episodes"])
    document = {"config": asdict(agent.config), "value": value}
    write_text(_file(run, part), json.dumps(document) + "\n")


def measured(run: RowRun) -> dict[str, Any]:
    """Returns what the finished jobs of a row measured: part -> value, and what the agent is."""
    agent: Any = load_agent(run.folder, device=run.device, **run.row.load_settings)
    scores = vars(agent.calibration).items()
    about = {
        "preset": agent.config.preset,
        "dataset": agent.task.dataset_id,
        "max_budget": agent.task.max_budget,
        "num_scores": {name: len(values) for name, values in scores if values is not None},
        "seed": agent.about["seed"],
        "trained_by": agent.about["provenance"],
    }
    values = {part: read_json(_file(run, part))["value"] for part in run.row.parts}
    return about | values
