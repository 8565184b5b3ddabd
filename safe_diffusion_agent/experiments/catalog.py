"""The catalog of studies: what `trebi reproduce NAME` runs.

The figures of the paper, and our own studies: their rows name presets, and start states that
nothing was tuned on. The datasets of Pendulum are those that settings were chosen on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safe_diffusion_agent.data.manifest import BY_EXPERTS
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.experiments.jobs import Settings
from safe_diffusion_agent.experiments.paper_figures import FIGURES
from safe_diffusion_agent.experiments.rows import Row, Scale, Study, standard_dataset
from safe_diffusion_agent.experiments.variants import (
    CAPS_CONVENTIONS,
    CAPS_QUICK,
    DISCOUNTS,
    FASTER,
    PAPERS_SIZES,
    PARTS_OF_FRONTIER,
    QUICK_WITHOUT,
    SCRIPTS_PENALTIES,
    STEPS_TO_QUICK,
    Change,
    loaded,
    one_after_the_other,
    trained,
)

Datasets = Sequence[CollectConfig]


def _replay(name: str, num_steps: int | None = None, seed: int = 0) -> CollectConfig:
    config = standard_dataset(f"safe/{name}-v0")
    return replace(config, num_steps=num_steps or config.num_steps, seed=seed)


PENDULUMS = tuple(_replay("Pendulum", seed=seed) for seed in (0, 1))
REACHABLE = _replay("ReacherReachable")
# Large enough for minutes of training, far from the paper's sizes.
CAR_CIRCLE, HALF_CHEETAH = _replay("CarCircle", 30_000), _replay("HalfCheetah", 100_000)
OTHERS = (CAR_CIRCLE, HALF_CHEETAH, REACHABLE)
FAST_ON = (PENDULUMS[0], HALF_CHEETAH, REACHABLE)


def _rows(
    datasets: Datasets, given: str, changes: Mapping[str, Change], **others: Any
) -> list[Row]:
    """A row per change and dataset; the keys are labels."""
    method, _, preset = given.partition(":")
    return [
        Row(
            label=label,
            dataset=dataset,
            method=method,
            preset=preset,
            settings=settings,
            load_settings=load_settings,
            **others,
        )
        for label, (settings, load_settings) in changes.items()
        for dataset in datasets
    ]


def _plain(datasets: Datasets, methods: Mapping[str, str], **others: Any) -> list[Row]:
    """Methods as they are; the keys are labels."""
    return [
        row
        for label, given in methods.items()
        for row in _rows(datasets, given, {label: ({}, {})}, **others)
    ]


_TEN = {"num_episodes": 10}
_BEST = {"frontier": "trebi:frontier", "caps": "caps:quick"}
_GUIDED = {"quick": "trebi:quick", "the paper's planner": "trebi:small"}
_FEW = {"seed": 3000, "num_episodes": 20}
_RANDOM = {"seed": 3000, "random_ratios": True, "num_episodes": 100}

_MARGINS = {"frontier": trained(), "frontier, no margin": loaded(risk=None)}
_DISCOUNTED = {"frontier, discounted return": trained(discount=None)}
_SPOKEN = ("risk", "forecasts", "behavior", "moving")  # parts of `trust` for every judge


def _every(steps: int) -> Settings:
    return {"seed": 6000, "control_interval": steps}


def _trust(dataset: CollectConfig, given: str, *parts: str) -> list[Row]:
    """Without a margin; more imagined episodes, so that a risk of 0.02 can be asked for."""
    more = {"calibration_episodes": 200} if given == "trebi:frontier" else {}
    change = more, {"risk": None, "budget_margin": 0.0}
    return _rows((dataset,), given, {given: change}, parts=parts)


def _best_of_four(evaluation: Settings) -> list[Row]:
    return [
        row for seed in (0, 1) for row in _plain(PENDULUMS, _BEST, seed=seed, evaluation=evaluation)
    ]


STUDIES: dict[str, Study] = FIGURES | {
    "frontier": Study(
        title="`frontier`, its rivals, and what each of its parts is worth, on Pendulum",
        rows=(
            *_best_of_four({"seed": 3000}),
            *_plain(PENDULUMS, _GUIDED, seed=0, evaluation=_FEW),
            *_rows(PENDULUMS[:1], "trebi:frontier", PARTS_OF_FRONTIER, seed=0, evaluation=_FEW),
        ),
        scale=Scale(seeds=(0, 1), num_episodes=60),
    ),
    "frontier-random": Study(
        title="`frontier` and its rivals with random budgets, on Pendulum",
        rows=(*_best_of_four(_RANDOM), *_plain(PENDULUMS, _GUIDED, seed=0, evaluation=_RANDOM)),
        scale=Scale(seeds=(0, 1)),
    ),
    "ablation": Study(
        title="What each improvement of `quick` over the paper's planner is worth, on Pendulum",
        rows=(
            *_rows(
                PENDULUMS,
                "trebi:small",
                one_after_the_other(STEPS_TO_QUICK),
                evaluation={"seed": 1000},
            ),
            *_rows(PENDULUMS, "trebi:quick", QUICK_WITHOUT, evaluation={"seed": 1000}),
        ),
        scale=Scale(),
    ),
    "caps": Study(
        title="What decides in CAPS's public code, on Pendulum",
        rows=(
            *_rows(PENDULUMS[:1], "caps:paper", one_after_the_other(CAPS_CONVENTIONS)),
            *_rows(PENDULUMS[:1], "caps:quick", CAPS_QUICK),
        ),
        scale=Scale(seeds=(0, 1)),
    ),
    "discount": Study(
        title="The paper's method with the discount of its text, and of its authors' script",
        rows=(
            *_rows(PENDULUMS[:1], "trebi:small", DISCOUNTS),
            *_rows(PENDULUMS[:1], "trebi:small", SCRIPTS_PENALTIES, seed=0, evaluation=_TEN),
        ),
        scale=Scale(seeds=(0, 1)),
    ),
    "tasks": Study(
        title="`frontier` and its rivals on other tasks",
        rows=(
            *_rows(OTHERS, "trebi:frontier", _MARGINS, evaluation={"seed": 3000}),
            *_rows((HALF_CHEETAH,), "trebi:frontier", _DISCOUNTED, evaluation={"seed": 3000}),
            *_plain(OTHERS, {"caps": "caps:quick", **_GUIDED}, evaluation={"seed": 3000}),
        ),
        scale=Scale(num_episodes=10),
    ),
    "robots": Study(
        title="Robots whose data have an expert",
        rows=tuple(
            _plain(
                BY_EXPERTS,
                {"frontier": "trebi:frontier", "caps": "caps:quick", "bc": "bc:quick"},
                evaluation={"seed": 7000},
            )
        ),
        scale=Scale(seeds=(0, 1, 2), num_episodes=20),
    ),
    "sizes": Study(
        title="The paper's planner at the paper's sizes, next to the small ones",
        rows=(
            *_rows((REACHABLE,), "trebi:paper", PAPERS_SIZES),
            *_plain((REACHABLE,), {"small": "trebi:small", "frontier": "trebi:frontier"}),
        ),
        scale=Scale(num_episodes=4),
    ),
    "fast": Study(
        title="The same `frontier` agent, planning in less time",
        rows=(
            *_rows(FAST_ON, "trebi:frontier", FASTER, evaluation={"seed": 6000}),
            *_plain(FAST_ON, {"a plan every 2 steps": "trebi:frontier"}, evaluation=_every(2)),
            *_plain(FAST_ON, {"a plan every 4 steps": "trebi:frontier"}, evaluation=_every(4)),
        ),
        scale=Scale(num_episodes=30),
        paired=True,
    ),
    "trust": Study(
        title="Does an agent know whether it can keep a budget?",
        rows=(
            *_trust(
                PENDULUMS[0], "trebi:frontier", *_SPOKEN, "shifts", "guard", "adaptive", "cuts"
            ),
            *_trust(PENDULUMS[0], "trebi:quick", *_SPOKEN, "adaptive", "cuts"),
            *_trust(REACHABLE, "trebi:frontier", *_SPOKEN, "shifts"),
            *_trust(HALF_CHEETAH, "trebi:frontier", "risk"),
        ),
        scale=Scale(num_episodes=15),
    ),
}


def study_of(name: str) -> Study:
    """Returns a study by its name.

    Raises:
        UnknownNameError: There is no such study.
    """
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name]
