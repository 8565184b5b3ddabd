"""The figures of the paper's comparison (Lin et al. 2023): what each of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safe_diffusion_agent.errors import UnknownNameError

BASELINES = ("bcq-lagrangian", "cpq", "bcorle", "bcq-saute")
# The paper's methods, the strongest public peer since, and three lines without a constraint.
COMPARED = ("trebi", *BASELINES, "caps", "diffuser", "bcq", "bc")
ANY_BUDGET = ("trebi", "bcorle", "bcq-saute", "caps")  # one training for all budgets

Variants = Mapping[str, Mapping[str, Any]]
MUJOCO_QUALITIES = ("medium", "medium-replay", "medium-expert")


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """One figure.

    Attributes:
        title: What it shows.
        datasets: Pairs of task and quality.
        methods: Names in `METHODS`.
        variants: Label -> settings: each makes an agent of its own. One without a label is as is.
        planner_variants: Label -> settings that the same agent is loaded with.
        random_ratios: Budgets drawn at random, instead of the five ratios.
        control_intervals: Steps between two plans.
    """

    title: str
    datasets: tuple[tuple[str, str], ...]
    methods: tuple[str, ...] = COMPARED
    variants: Variants = field(default_factory=lambda: {"": {}})
    planner_variants: Variants = field(default_factory=lambda: {"": {}})
    random_ratios: bool = False
    control_intervals: tuple[int, ...] = (1,)


def _mujoco(name: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"safe/{name}-v0", quality) for quality in MUJOCO_QUALITIES)


SMALL_TASKS = (("safe/Pendulum-v0", "replay"), ("safe/Reacher-v0", "replay"))
BULLET_TASKS = (("safe/CarCircle-v0", "replay"), ("safe/BallReach-v0", "replay"))


def _random(title: str, datasets: tuple[tuple[str, str], ...]) -> PaperFigure:
    return PaperFigure(title=title, datasets=datasets, methods=ANY_BUDGET, random_ratios=True)


FIGURES: dict[str, PaperFigure] = {
    "fig1": PaperFigure(title="Pendulum and Reacher", datasets=SMALL_TASKS),
    "fig2": PaperFigure(title="HalfCheetah", datasets=_mujoco("HalfCheetah")),
    "fig3": PaperFigure(title="CarCircle and BallReach", datasets=BULLET_TASKS),
    "fig4a": PaperFigure(
        title="Planning horizon H, on Pendulum",
        datasets=SMALL_TASKS[:1],
        methods=("trebi",),
        variants={f"H = {horizon}": {"horizon": horizon} for horizon in (8, 16, 32, 64, 128)},
    ),
    "fig4b": PaperFigure(
        title="Penalty n, on Pendulum",
        datasets=SMALL_TASKS[:1],
        methods=("trebi",),
        planner_variants={f"n = {n}": {"penalty": float(n)} for n in (10, 100, 1000, 10000)},
    ),
    "fig5": PaperFigure(title="Hopper", datasets=_mujoco("Hopper")),
    "fig6": PaperFigure(title="Walker2d", datasets=_mujoco("Walker2d")),
    "fig7": PaperFigure(
        title="Steps between two plans, on HalfCheetah",
        datasets=(("safe/HalfCheetah-v0", "medium-replay"),),
        methods=("trebi",),
        control_intervals=(1, 2, 3, 4),
    ),
    "fig8": _random("HalfCheetah, random budgets", _mujoco("HalfCheetah")),
    "fig9": _random("Hopper, random budgets", _mujoco("Hopper")),
    "fig10": _random("Walker2d, random budgets", _mujoco("Walker2d")),
    "fig11": _random("CarCircle and BallReach, random budgets", BULLET_TASKS),
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a reproduction is.

    Attributes:
        preset: Of every method.
        seeds: Seeds of the trainings.
        num_episodes: Per budget and seed; with random budgets, 100 in all.
        max_steps: Steps of a dataset, and of SAC, are cut to this.
    """

    preset: str
    seeds: tuple[int, ...]
    num_episodes: int
    max_steps: int | None


SCALES: dict[str, Scale] = {
    "small": Scale(preset="quick", seeds=(0,), num_episodes=20, max_steps=20_000),
    "paper": Scale(preset="paper", seeds=(0, 1, 2), num_episodes=60, max_steps=None),
}


def paper_figure(name: str) -> PaperFigure:
    """A figure by its name.

    Raises:
        UnknownNameError: There is no such figure.
    """
    if name not in FIGURES:
        raise UnknownNameError("figure", name, FIGURES)
    return FIGURES[name]


def scale_of(name: str) -> Scale:
    """A scale by its name.

    Raises:
        UnknownNameError: There is no such scale.
    """
    if name not in SCALES:
        raise UnknownNameError("scale", name, SCALES)
    return SCALES[name]
