"""Named settings of TREBI.

`paper` is the paper's text (Lin et al. 2023, Alg. 1, Eq. 16, App. D), `small` the same method at a
size for two CPU cores. `quick` and `frontier` are ours, for two CPU cores; `fast` and `realtime`
are `frontier` with planners that take less time.

`reference` is what the authors' code does as its scripts call it (github.com/qianlin04/
Safe-offline-RL-with-diffusion-model, commit f042e5c), with the bugs fixed that make it fail: value
networks fit any horizon, states of a batch have candidates of their own, and a predicted cost of
NaN is over budget. What it leaves out:

- on Hopper medium-expert the code has `guidance_scale` 1e-4 and `num_unguided_steps` 4: settings
  here differ by task, and not by dataset;
- there, the costs of MuJoCo's data come one step late; here, when they are caused;
- it pads terminated episodes with zeros in raw units; here, after normalization;
- its data of Pendulum have the actions as SAC scales them, half of what the environment is given;
- it divides constant dimensions by 1e-8, here by 1; its executed actions are not clipped;
- on MuJoCo its config has the discount 0.997; here it is the task's, 0.99 as on its command lines;
- with random budgets on MuJoCo its script plans every other step: an evaluation's
  `control_interval`.
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
_BULLET_TASKS = ("safe/CarCircle-v0", "safe/BallReach-v0")
_MUJOCO_TASKS = [
    f"safe/{name}{kind}-v0"
    for name in ("HalfCheetah", "Hopper", "Walker2d")
    for kind in ("", "Sum")
]
_APP_D: dict[str, dict[str, Any]] = {
    "safe/Pendulum-v0": {"horizon": 128},
    **{task: {"penalty": 100.0} for task in (*_BULLET_TASKS, *_MUJOCO_TASKS)},
}

# What the authors' code has: config/toy_safe_env.py and test_cost_toyenv.sh; config/locomotion.py,
# test_cost_bsg.sh, and test_cost.sh, whose n stays 1000 (their later advice is App. D's 100).
_TOY: dict[str, Any] = {
    "num_candidates": 1,
    "num_steps": 200_000,
    "discount": 0.99,
    "cost_discount": 0.99,
}
_MUJOCO: dict[str, Any] = {"value_steps": 200_000}
_FALLS: dict[str, Any] = _MUJOCO | {"termination_penalty": 100.0}
_REFERENCE: dict[str, dict[str, Any]] = {
    "safe/Pendulum-v0": _TOY | {"horizon": 128, "budget_scale": 0.336},
    "safe/Reacher-v0": _TOY | {"budget_scale": 0.728},
    "safe/HalfCheetah-v0": _MUJOCO
    | {
        "horizon": 4,
        "width_mults": (1, 4, 8),
        "guidance_scale": 1e-3,
        "num_unguided_steps": 4,
    },
    "safe/Hopper-v0": _FALLS,
    "safe/Walker2d-v0": _FALLS,
    **{task: {"penalty": 100.0, "value_learning_rate": 1e-3} for task in _BULLET_TASKS},
}

# Settings that differ by task: preset -> task -> settings.
TASK_OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": _APP_D,
    "small": _APP_D,
    "reference": _REFERENCE,
    # One joint needs no larger networks.
    **{
        preset: {"safe/Pendulum-v0": {"model_width": 96, "critic_width": 192, "model_steps": 4_000}}
        for preset in ("frontier", "fast", "realtime")
    },
}
