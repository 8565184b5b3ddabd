"""What studies change in the settings of a method, by label: of its training, or its agent."""

from collections.abc import Mapping
from typing import Any

from safe_diffusion_agent.experiments.jobs import Settings
from safe_diffusion_agent.methods.trebi.presets import PRESETS, TASK_OVERRIDES

Change = tuple[Settings, Settings]  # of the training, and of the trained agent


def trained(**settings: Any) -> Change:
    """Returns a change of the training."""
    return settings, {}


def loaded(**settings: Any) -> Change:
    """Returns a change of the trained agent."""
    return {}, settings


def one_after_the_other(changes: Mapping[str, Change]) -> dict[str, Change]:
    """Returns the changes, each with all those before it."""
    done: Change = ({}, {})
    ladder: dict[str, Change] = {}
    for label, (settings, load_settings) in changes.items():
        done = {**done[0], **settings}, {**done[1], **load_settings}
        ladder[label] = done
    return ladder


# Each part of `frontier` taken away.
PARTS_OF_FRONTIER = {
    "frontier, no margin": loaded(risk=None),
    "frontier, one multiplier": loaded(bound="single"),
    "frontier, without the critic's plans": loaded(critic_plans=False),
    "frontier, one diffusion sample": loaded(num_candidates=1),
    "frontier, one model step": trained(model_tolerance=1e-9, min_branch_steps=1),
    "frontier, no imagined branches": trained(branch_share=0.0),
}

# From `small`, the paper's method, to `quick`.
STEPS_TO_QUICK = {
    "the paper's planner": trained(),
    "+ horizon 32, weight 5 of the first action": trained(horizon=32, first_action_weight=5.0),
    "+ time to go": trained(time_to_go=True),
    "+ windows up to the end": trained(windows="all"),
    "+ clipping": loaded(clip=True),
    "+ standardized values, clean windows": trained(standardize_values=True, clean_share=0.15),
    "+ 0.9-quantile of the cost": (
        {"cost_quantiles": (0.6, 0.75, 0.9)},
        {"cost_quantile": 0.9},
    ),
    "+ 5 % margin": loaded(budget_margin=0.05),
    "+ penalty n = 100": loaded(penalty=100.0),
    "+ guidance on the input, not in the last two steps": loaded(
        guidance_on="input", num_unguided_steps=2
    ),
    "+ a tenth of the episodes held out (= quick)": trained(calibration_share=0.1),
}
QUICK_WITHOUT = {
    "quick": trained(),
    "quick, time-blind": trained(time_to_go=False),
    "quick, windows inside": trained(windows="inside"),
    "quick, no clipping": loaded(clip=False),
    "quick, raw values, no clean windows": trained(standardize_values=False, clean_share=0.0),
    "quick, mean cost": loaded(cost_quantile=None),
    "quick, no margin": loaded(budget_margin=0.0),
    "quick, n = 20": loaded(penalty=20.0),
    "quick, n = 1000": loaded(penalty=1000.0),
    "quick, guidance on the mean": loaded(guidance_on="mean", num_unguided_steps=0),
    "quick, guidance twice per step": loaded(guidance_repeats=2),
    "quick, scored before the last denoising": loaded(score="noised"),
    "quick, no guidance": loaded(guidance_scale=0.0),
    "quick, 64 candidates": loaded(num_candidates=64),
    "quick, 1 candidate": loaded(num_candidates=1),
}

# Ways in which a trained `frontier` agent plans faster.
FASTER = {
    "frontier": loaded(),
    "frontier, compiled": loaded(execution="compiled"),
    "2 sampling steps, 4 candidates": loaded(sampling_steps=2, num_candidates=4),
    "1 sampling step": loaded(sampling_steps=1),
    "fast": loaded(sampling_steps=5, num_candidates=4),
    "realtime": loaded(num_candidates=0),
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
DISCOUNTS = {
    "gamma = 1, as in App. D": trained(),
    "gamma = 0.99, as in the script": _SCRIPTS_DISCOUNT,
    "gamma = 0.99, and the script's planner": (
        _SCRIPTS_DISCOUNT[0],
        {**_SCRIPTS_DISCOUNT[1], **_SCRIPTS_PLANNER},
    ),
}
SCRIPTS_PENALTIES = {
    f"gamma = 0.99, n = {n:g}": (_SCRIPTS_DISCOUNT[0], {**_SCRIPTS_DISCOUNT[1], "penalty": n})
    for n in (10.0, 100.0, 10_000.0)
}

_SHORT = {"num_steps": 8_000}  # of the paper's 1,000,000
PAPERS_SIZES: dict[str, Change] = {
    "paper": (_SHORT, {}),
    "paper, 5 sampling steps": (_SHORT, {"sampling_steps": 5}),
    "paper, no guidance": (_SHORT, {"guidance_scale": 0.0}),
    "paper, bfloat16": (_SHORT, {"precision": "bfloat16"}),
}

# From the training script of CAPS's public code to the conventions of its class, at `quick`'s size.
_CAPS_SIZE = {"num_steps": 15_000, "batch_size": 256, "width": 128}
CAPS_CONVENTIONS = {
    "paper, normalized": trained(**_CAPS_SIZE, raw_observations=False, raw_actions=False),
    "paper": trained(raw_observations=True, raw_actions=True),
    "+ expectiles 0.9": trained(expectile=0.9, cost_expectile=0.9),
    "+ values go on after time limits": trained(time_limit_ends=False),
    "+ budgets as for 300 steps": loaded(extra_steps=100),
    "+ rewards as they are": trained(reward_scale=1.0),
}
CAPS_QUICK = {
    "quick": trained(),
    "quick, budgets as for 300 steps": loaded(extra_steps=100),
}
