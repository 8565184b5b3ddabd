"""The catalog of studies: what `trebi reproduce NAME` runs.

The figures of the paper, and our own studies: their rows name presets, and start states that
nothing was tuned on.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safe_diffusion_agent.data.collection import CollectConfig
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.experiments.jobs import Settings
from safe_diffusion_agent.experiments.paper_figures import FIGURES
from safe_diffusion_agent.experiments.rows import Row, Scale, Study, standard_dataset

Change = tuple[Settings, Settings]  # of the training, and of the trained agent


def _replay(name: str, num_steps: int | None = None, seed: int = 0) -> CollectConfig:
    config = standard_dataset(f"safe/{name}-v0")
    return replace(config, num_steps=num_steps or config.num_steps, seed=seed)


PENDULUMS = tuple(_replay("Pendulum", seed=seed) for seed in (0, 1))
REACHABLE = _replay("ReacherReachable")
# Large enough for minutes of training, far from the paper's sizes.
CAR_CIRCLE, HALF_CHEETAH = _replay("CarCircle", 30_000), _replay("HalfCheetah", 100_000)


def _row(
    label: str, dataset: CollectConfig, given: str, change: Change = ({}, {}), **others: Any
) -> Row:
    method, _, preset = given.partition(":")
    return Row(
        label=label,
        dataset=dataset,
        method=method,
        preset=preset,
        settings=change[0],
        load_settings=change[1],
        **others,
    )


def _trained(**settings: Any) -> Change:
    return settings, {}


def _loaded(**settings: Any) -> Change:
    return {}, settings


def _ladder(given: str, steps: Mapping[str, Change], **others: Any) -> list[Row]:
    """One change after the other, on both datasets of Pendulum."""
    rows: list[Row] = []
    settings: Settings = {}
    load_settings: Settings = {}
    for label, (trained, loaded) in steps.items():
        settings, load_settings = {**settings, **trained}, {**load_settings, **loaded}
        change = settings, load_settings
        rows += [_row(label, data, given, change, **others) for data in PENDULUMS]
    return rows


# Each part of `frontier` taken away.
_PARTS_OF_FRONTIER = {
    "frontier, no margin": _loaded(risk=None),
    "frontier, one multiplier": _loaded(bound="single"),
    "frontier, without the critic's plans": _loaded(critic_plans=False),
    "frontier, one diffusion sample": _loaded(num_candidates=1),
    "frontier, one model step": _trained(model_tolerance=1e-9, min_branch_steps=1),
    "frontier, no imagined branches": _trained(branch_share=0.0),
}

# From `small`, the paper's method, to `quick`.
_STEPS_TO_QUICK = {
    "the paper's planner": _trained(),
    "+ horizon 32, weight 5 of the first action": _trained(horizon=32, first_action_weight=5.0),
    "+ time to go": _trained(time_to_go=True),
    "+ windows up to the end": _trained(windows="all"),
    "+ clipping": _loaded(clip=True),
    "+ standardized values, clean windows": _trained(standardize_values=True, clean_share=0.15),
    "+ 0.9-quantile of the cost": (
        {"cost_quantiles": (0.6, 0.75, 0.9)},
        {"cost_quantile": 0.9},
    ),
    "+ 5 % margin": _loaded(budget_margin=0.05),
    "+ penalty n = 100": _loaded(penalty=100.0),
    "+ guidance on the input, not in the last two steps": _loaded(
        guidance_on="input", num_unguided_steps=2
    ),
    "+ a tenth of the episodes held out (= quick)": _trained(calibration_share=0.1),
}
_QUICK_WITHOUT = {
    "quick": _trained(),
    "quick, time-blind": _trained(time_to_go=False),
    "quick, windows inside": _trained(windows="inside"),
    "quick, no clipping": _loaded(clip=False),
    "quick, raw values, no clean windows": _trained(standardize_values=False, clean_share=0.0),
    "quick, mean cost": _loaded(cost_quantile=None),
    "quick, no margin": _loaded(budget_margin=0.0),
    "quick, n = 20": _loaded(penalty=20.0),
    "quick, n = 1000": _loaded(penalty=1000.0),
    "quick, guidance on the mean": _loaded(guidance_on="mean", num_unguided_steps=0),
    "quick, guidance twice per step": _loaded(guidance_repeats=2),
    "quick, scored before the last denoising": _loaded(score="noised"),
    "quick, no guidance": _loaded(guidance_scale=0.0),
    "quick, 64 candidates": _loaded(num_candidates=64),
    "quick, 1 candidate": _loaded(num_candidates=1),
}

# Ways in which a trained `frontier` agent plans faster: settings, and steps between two plans.
_FASTER: dict[str, tuple[Settings, int]] = {
    "frontier": ({}, 1),
    "frontier, compiled": ({"execution": "compiled"}, 1),
    "2 sampling steps, 4 candidates": ({"sampling_steps": 2, "num_candidates": 4}, 1),
    "1 sampling step": ({"sampling_steps": 1}, 1),
    "fast": ({"sampling_steps": 5, "num_candidates": 4}, 1),
    "realtime": ({"num_candidates": 0}, 1),
    "a plan every 2 steps": ({}, 2),
    "a plan every 4 steps": ({}, 4),
}

_SHORT = {"num_steps": 8_000}  # of the paper's 1,000,000
_SIZES: dict[str, tuple[str, Change]] = {
    "paper": ("trebi:paper", (_SHORT, {})),
    "paper, 5 sampling steps": ("trebi:paper", (_SHORT, {"sampling_steps": 5})),
    "paper, no guidance": ("trebi:paper", (_SHORT, {"guidance_scale": 0.0})),
    "paper, bfloat16": ("trebi:paper", (_SHORT, {"precision": "bfloat16"})),
    "small": ("trebi:small", _trained()),
    "frontier": ("trebi:frontier", _trained()),
}

_ON_TASKS: dict[str, tuple[str, Change]] = {
    "frontier": ("trebi:frontier", _trained()),
    "frontier, no margin": ("trebi:frontier", _loaded(risk=None)),
    "frontier, discounted return": ("trebi:frontier", _trained(discount=None)),
    "caps": ("caps:quick", _trained()),
    "quick": ("trebi:quick", _trained()),
    "the paper's planner": ("trebi:small", _trained()),
}

_FRONTIER_ROWS = [
    *(
        _row(label, data, given, seed=seed)
        for label, given in {"frontier": "trebi:frontier", "caps": "caps:quick"}.items()
        for data in PENDULUMS
        for seed in (0, 1)
    ),
    *(
        _row(label, data, given, seed=0)
        for label, given in {"quick": "trebi:quick", "the paper's planner": "trebi:small"}.items()
        for data in PENDULUMS
    ),
]
_FEW = {"seed": 3000, "num_episodes": 20}

# What is measured of which agent; more imagined episodes, so that a risk of 0.02 can be asked for.
_WITHOUT_MARGIN = {"risk": None, "budget_margin": 0.0}
_TRUST = {
    ("trebi:frontier", PENDULUMS[0]): (
        *("risk", "forecasts", "behavior", "moving", "shifts", "guard", "adaptive", "cuts"),
    ),
    ("trebi:quick", PENDULUMS[0]): (
        *("risk", "forecasts", "behavior", "moving", "adaptive", "cuts"),
    ),
    ("trebi:frontier", REACHABLE): ("risk", "forecasts", "behavior", "moving", "shifts"),
    ("trebi:frontier", HALF_CHEETAH): ("risk",),
}

STUDIES: dict[str, Study] = FIGURES | {
    "frontier": Study(
        title="`frontier`, its rivals, and what each of its parts is worth, on Pendulum",
        rows=(
            *(replace(row, evaluation={"seed": 3000}) for row in _FRONTIER_ROWS[:8]),
            *(replace(row, evaluation=_FEW) for row in _FRONTIER_ROWS[8:]),
            *(
                _row(label, PENDULUMS[0], "trebi:frontier", change, seed=0, evaluation=_FEW)
                for label, change in _PARTS_OF_FRONTIER.items()
            ),
        ),
        scale=Scale(seeds=(0, 1), num_episodes=60),
    ),
    "frontier-random": Study(
        title="`frontier` and its rivals with random budgets, on Pendulum",
        rows=tuple(
            replace(row, evaluation={"seed": 3000, "random_ratios": True, "num_episodes": 100})
            for row in _FRONTIER_ROWS
        ),
        scale=Scale(seeds=(0, 1), num_episodes=60),
    ),
    "ablation": Study(
        title="What each improvement of `quick` over the paper's planner is worth, on Pendulum",
        rows=(
            *_ladder("trebi:small", _STEPS_TO_QUICK, evaluation={"seed": 1000}),
            *(
                _row(label, data, "trebi:quick", change, evaluation={"seed": 1000})
                for label, change in _QUICK_WITHOUT.items()
                for data in PENDULUMS
            ),
        ),
        scale=Scale(num_episodes=20),
    ),
    "tasks": Study(
        title="`frontier` and its rivals on other tasks",
        rows=tuple(
            _row(label, data, given, change, evaluation={"seed": 3000})
            for data in (CAR_CIRCLE, HALF_CHEETAH, REACHABLE)
            for label, (given, change) in _ON_TASKS.items()
            if data == HALF_CHEETAH or not label.endswith("discounted return")
        ),
        scale=Scale(num_episodes=10),
    ),
    "sizes": Study(
        title="The paper's planner at the paper's sizes, next to the small ones",
        rows=tuple(
            _row(label, REACHABLE, given, change) for label, (given, change) in _SIZES.items()
        ),
        scale=Scale(num_episodes=4),
    ),
    "fast": Study(
        title="The same `frontier` agent, planning in less time",
        rows=tuple(
            _row(
                label,
                data,
                "trebi:frontier",
                ({}, settings),
                evaluation={"seed": 6000, "control_interval": interval},
            )
            for data in (PENDULUMS[0], HALF_CHEETAH, REACHABLE)
            for label, (settings, interval) in _FASTER.items()
        ),
        scale=Scale(num_episodes=30),
        paired=True,
    ),
    "trust": Study(
        title="Does an agent know whether it can keep a budget?",
        rows=tuple(
            Row(
                label=given,
                dataset=data,
                preset=given.removeprefix("trebi:"),
                settings={} if given == "trebi:quick" else {"calibration_episodes": 200},
                load_settings=_WITHOUT_MARGIN,
                parts=parts,
            )
            for (given, data), parts in _TRUST.items()
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
