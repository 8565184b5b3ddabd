"""The catalog of studies: what `trebi reproduce NAME` runs.

The figures of the paper, and our own studies: their rows name presets, and start states that
nothing was tuned on. The datasets of Pendulum are those that settings were chosen on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safe_diffusion_agent.data.collection import CollectConfig
from safe_diffusion_agent.data.manifest import BY_EXPERTS
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.experiments.jobs import Settings
from safe_diffusion_agent.experiments.paper_figures import FIGURES
from safe_diffusion_agent.experiments.rows import Row, Scale, Study, standard_dataset
from safe_diffusion_agent.methods.trebi.presets import PRESETS, TASK_OVERRIDES

Datasets = Sequence[CollectConfig]
Change = tuple[Settings, Settings]  # of the training, and of the trained agent


def _replay(name: str, num_steps: int | None = None, seed: int = 0) -> CollectConfig:
    config = standard_dataset(f"safe/{name}-v0")
    return replace(config, num_steps=num_steps or config.num_steps, seed=seed)


PENDULUMS = tuple(_replay("Pendulum", seed=seed) for seed in (0, 1))
REACHABLE = _replay("ReacherReachable")
# Large enough for minutes of training, far from the paper's sizes.
CAR_CIRCLE, HALF_CHEETAH = _replay("CarCircle", 30_000), _replay("HalfCheetah", 100_000)
OTHERS = (CAR_CIRCLE, HALF_CHEETAH, REACHABLE)
FAST_ON = (PENDULUMS[0], HALF_CHEETAH, REACHABLE)


def _trained(**settings: Any) -> Change:
    return settings, {}


def _loaded(**settings: Any) -> Change:
    return {}, settings


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


def _one_after_the_other(changes: Mapping[str, Change]) -> dict[str, Change]:
    done: Change = ({}, {})
    ladder: dict[str, Change] = {}
    for label, (settings, load_settings) in changes.items():
        done = {**done[0], **settings}, {**done[1], **load_settings}
        ladder[label] = done
    return ladder


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

# Ways in which a trained `frontier` agent plans faster.
_FASTER = {
    "frontier": _loaded(),
    "frontier, compiled": _loaded(execution="compiled"),
    "2 sampling steps, 4 candidates": _loaded(sampling_steps=2, num_candidates=4),
    "1 sampling step": _loaded(sampling_steps=1),
    "fast": _loaded(sampling_steps=5, num_candidates=4),
    "realtime": _loaded(num_candidates=0),
}

# The paper's method with the discount of its Appendix D, and with that of the authors' script.
_SCRIPT = TASK_OVERRIDES["reference"]["safe/Pendulum-v0"]
_SCRIPTS_DISCOUNT: Change = (
    {name: _SCRIPT[name] for name in ("discount", "cost_discount")},
    {"budget_scale": _SCRIPT["budget_scale"]},
)
_SCRIPTS_PLANNER: Settings = {
    "num_candidates": _SCRIPT["num_candidates"],
    **{
        name: getattr(PRESETS["reference"].planner, name)
        for name in ("guidance_on", "guidance_repeats", "num_unguided_steps", "score")
    },
}
_DISCOUNTS = {
    "gamma = 1, as in App. D": _trained(),
    "gamma = 0.99, as in the script": _SCRIPTS_DISCOUNT,
    "gamma = 0.99, and the script's planner": (
        _SCRIPTS_DISCOUNT[0],
        {**_SCRIPTS_DISCOUNT[1], **_SCRIPTS_PLANNER},
    ),
}
_SCRIPTS_PENALTIES = {
    f"gamma = 0.99, n = {n:g}": (_SCRIPTS_DISCOUNT[0], {**_SCRIPTS_DISCOUNT[1], "penalty": n})
    for n in (10.0, 100.0, 10_000.0)
}

_TEN = {"num_episodes": 10}

_SHORT = {"num_steps": 8_000}  # of the paper's 1,000,000
_PAPERS_SIZES: dict[str, Change] = {
    "paper": (_SHORT, {}),
    "paper, 5 sampling steps": (_SHORT, {"sampling_steps": 5}),
    "paper, no guidance": (_SHORT, {"guidance_scale": 0.0}),
    "paper, bfloat16": (_SHORT, {"precision": "bfloat16"}),
}

# From the training script of CAPS's public code to the conventions of its class, at `quick`'s size.
_CAPS_SIZE = {"num_steps": 15_000, "batch_size": 256, "width": 128}
_CAPS_CONVENTIONS = {
    "paper, normalized": _trained(**_CAPS_SIZE, raw_observations=False, raw_actions=False),
    "paper": _trained(raw_observations=True, raw_actions=True),
    "+ expectiles 0.9": _trained(expectile=0.9, cost_expectile=0.9),
    "+ values go on after time limits": _trained(time_limit_ends=False),
    "+ budgets as for 300 steps": _loaded(extra_steps=100),
    "+ rewards as they are": _trained(reward_scale=1.0),
}
_CAPS_QUICK = {
    "quick": _trained(),
    "quick, budgets as for 300 steps": _loaded(extra_steps=100),
}

_BEST = {"frontier": "trebi:frontier", "caps": "caps:quick"}
_GUIDED = {"quick": "trebi:quick", "the paper's planner": "trebi:small"}
_FEW = {"seed": 3000, "num_episodes": 20}
_RANDOM = {"seed": 3000, "random_ratios": True, "num_episodes": 100}

_MARGINS = {"frontier": _trained(), "frontier, no margin": _loaded(risk=None)}
_DISCOUNTED = {"frontier, discounted return": _trained(discount=None)}
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
            *_rows(PENDULUMS[:1], "trebi:frontier", _PARTS_OF_FRONTIER, seed=0, evaluation=_FEW),
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
                _one_after_the_other(_STEPS_TO_QUICK),
                evaluation={"seed": 1000},
            ),
            *_rows(PENDULUMS, "trebi:quick", _QUICK_WITHOUT, evaluation={"seed": 1000}),
        ),
        scale=Scale(),
    ),
    "caps": Study(
        title="What decides in CAPS's public code, on Pendulum",
        rows=(
            *_rows(PENDULUMS[:1], "caps:paper", _one_after_the_other(_CAPS_CONVENTIONS)),
            *_rows(PENDULUMS[:1], "caps:quick", _CAPS_QUICK),
        ),
        scale=Scale(seeds=(0, 1)),
    ),
    "discount": Study(
        title="The paper's method with the discount of its text, and of its authors' script",
        rows=(
            *_rows(PENDULUMS[:1], "trebi:small", _DISCOUNTS),
            *_rows(PENDULUMS[:1], "trebi:small", _SCRIPTS_PENALTIES, seed=0, evaluation=_TEN),
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
            *_rows((REACHABLE,), "trebi:paper", _PAPERS_SIZES),
            *_plain((REACHABLE,), {"small": "trebi:small", "frontier": "trebi:frontier"}),
        ),
        scale=Scale(num_episodes=4),
    ),
    "fast": Study(
        title="The same `frontier` agent, planning in less time",
        rows=(
            *_rows(FAST_ON, "trebi:frontier", _FASTER, evaluation={"seed": 6000}),
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
