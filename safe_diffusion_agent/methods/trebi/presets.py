"""Named settings of TREBI.

`paper` is the paper's text (Lin et al. 2023, Alg. 1, Eq. 16, App. D), `small` the same method at a
size for two CPU cores. `reference` is what the released code does, with the bugs fixed that make it
fail. `quick` and `frontier` are ours, for two CPU cores; `fast` and `realtime` are `frontier` with
planners that take less time.
"""

from dataclasses import replace
from typing import Any

from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.settings import change


def _preset(base: TrebiConfig, name: str, **settings: Any) -> TrebiConfig:
    return change(replace(base, preset=name), settings)


PAPER = TrebiConfig(preset="paper")

REFERENCE = _preset(
    PAPER,
    "reference",
    guidance_on="input",
    guidance_repeats=2,
    num_unguided_steps=2,
    score="noised",
)

# Gives up: the U-Net and most candidates, diffusion steps and optimizer steps, that is, detail in
# the trajectories. Gains: about a thousandth of the work per action. The method is the paper's.
SMALL = _preset(
    PAPER,
    "small",
    network="mlp",
    diffusion_steps=10,
    num_steps=8_000,
    batch_size=256,
    learning_rate=1e-3,
    decay_from=0.5,
    ema_interval=1,
    ema_start=100,
    num_candidates=16,
)

# Gains: value networks that know how much of the episode is left and have seen its end; a cost
# estimate on the careful side (0.9-quantile, 5 % margin), which lets a smaller penalty do.
# results/ablation/ has what each improvement is worth.
QUICK = _preset(
    SMALL,
    "quick",
    time_to_go=True,
    cost_quantiles=(0.6, 0.75, 0.9),
    standardize_values=True,
    first_action_weight=5.0,
    windows="all",
    clean_share=0.15,
    calibration_share=0.1,
    penalty=100.0,
    guidance_on="input",
    num_unguided_steps=2,
    cost_quantile=0.9,
    budget_margin=0.05,
    clip=True,
)

# Judges plans by what can still be reached, and not by what the data's behavior went on to do.
# Gives up: guidance; the budget enters where candidates are judged. Gains: see results/frontier/.
# It plans for the return that is reported, which is not discounted, also where costs are.
FRONTIER = _preset(
    QUICK,
    "frontier",
    judge="frontier",
    discount=1.0,
    horizon=16,
    num_steps=5_700,
    guidance_scale=0.0,
    time_to_go=False,
    calibration_share=0.0,
    cost_quantiles=(),
    cost_quantile=None,
    budget_margin=0.0,
    num_candidates=8,
    risk=0.05,
    actor_spread=True,
    idle_plan=True,
    critic_width=256,
    model_width=192,
    model_steps=12_000,
)

# The same agent in less time: an agent trained as any of the three plans as the others do when
# loaded with their settings below. What is given up: see results/latency/.
FAST = _preset(FRONTIER, "fast", sampling_steps=5, num_candidates=4)
REALTIME = _preset(FRONTIER, "realtime", num_candidates=0)  # the critic's plans only

GUIDED = {config.preset: config for config in (PAPER, SMALL, REFERENCE, QUICK)}
PRESETS: dict[str, TrebiConfig] = GUIDED | {
    config.preset: config for config in (FRONTIER, FAST, REALTIME)
}

# Where App. D has other values than for most tasks (and than for a task of one's own).
_BULLET: dict[str, dict[str, Any]] = {
    f"safe/{name}-v0": {"penalty": 100.0} for name in ("CarCircle", "BallReach")
}
_APP_D: dict[str, dict[str, Any]] = _BULLET | {
    "safe/Pendulum-v0": {"horizon": 128},
    **{f"safe/{name}-v0": {"penalty": 100.0} for name in ("HalfCheetah", "Hopper", "Walker2d")},
}

# Settings that differ by task: preset -> task -> settings.
TASK_OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": _APP_D,
    "small": _APP_D,
    # The script that the authors ship for Pendulum: one candidate, gamma 0.99, scaled budgets. The
    # one for MuJoCo has the penalty 1000 (their later advice is App. D's 100).
    "reference": _BULLET
    | {
        "safe/Pendulum-v0": {
            "horizon": 128,
            "num_candidates": 1,
            "num_steps": 200_000,
            "discount": 0.99,
            "cost_discount": 0.99,
            "budget_scale": 0.336,
        }
    },
    # One joint needs no larger networks.
    **{
        preset: {"safe/Pendulum-v0": {"model_width": 96, "critic_width": 192, "model_steps": 4_000}}
        for preset in ("frontier", "fast", "realtime")
    },
}
