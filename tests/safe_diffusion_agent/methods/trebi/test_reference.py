"""`reference` against the authors' code: every value with the file and line that it is in.

Their repository is github.com/qianlin04/Safe-offline-RL-with-diffusion-model, at commit f042e5c.
"""

import pytest

from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.settings import group_of_setting
from safe_envs import TASKS

GROUP_OF = group_of_setting(TrebiConfig)
TOY, TOY_SCRIPT = "config/toy_safe_env.py", "test_cost_toyenv.sh"
LOCOMOTION, MUJOCO_SCRIPT = "config/locomotion.py", "test_cost.sh"
BULLET_SCRIPT = "test_cost_bsg.sh"

EVERYWHERE = {
    "guidance_on": ("input", "diffuser/sampling/functions.py:118, 131"),
    "guidance_repeats": (2, f"{TOY}:163, {LOCOMOTION}:163"),
    "penalty_ramp": (False, f"guide_type 1: {TOY_SCRIPT}:3, {MUJOCO_SCRIPT}:27, {BULLET_SCRIPT}:6"),
    "batch_size": (64, f"32 of 2 accumulated gradients: {TOY}:52-54, {LOCOMOTION}:52-54"),
    "learning_rate": (2e-4, f"{TOY}:53, {LOCOMOTION}:53"),
    "ema_decay": (0.995, f"{TOY}:55, {LOCOMOTION}:55"),
}
TOYS = {
    "num_candidates": (1, f"{TOY_SCRIPT}:7"),
    "penalty": (1000, f"{TOY_SCRIPT}:1"),
    "discount": (0.99, f"{TOY_SCRIPT}:14, {TOY}:76"),
    "cost_discount": (0.99, f"{TOY}:119, 184"),
    "num_steps": (200_000, f"{TOY}:51"),
    "value_steps": (None, f"as many: {TOY}:95, 138"),
    "guidance_scale": (0.1, f"{TOY}:164"),
    "num_unguided_steps": (2, f"{TOY}:165"),
    "width_mults": ((1, 2, 4, 8), f"{TOY}:31"),
    "termination_penalty": (0, f"{TOY}:77, 120"),
}
ROBOTS = {
    "num_candidates": (64, f"{LOCOMOTION}:157, {MUJOCO_SCRIPT}:23"),
    "penalty": (1000, f"{MUJOCO_SCRIPT}:22"),
    "discount": (None, f"the task's, 0.99: {MUJOCO_SCRIPT}:39; {LOCOMOTION}:183 has 0.997"),
    "budget_scale": (1, "scripts/plan_cost_guided.py:48 is for undiscounted maximum budgets"),
    "horizon": (32, f"{LOCOMOTION}:25"),
    "num_steps": (1_000_000, f"{LOCOMOTION}:51"),
    "value_steps": (200_000, f"{LOCOMOTION}:95, 138"),
    "value_learning_rate": (None, f"as of the denoiser: {LOCOMOTION}:97, 140"),
    "guidance_scale": (0.1, f"{LOCOMOTION}:164"),
    "num_unguided_steps": (2, f"{LOCOMOTION}:165"),
    "width_mults": ((1, 2, 4, 8), f"{LOCOMOTION}:31"),
    "termination_penalty": (100, f"{LOCOMOTION}:77, 120"),
}
BULLET = ROBOTS | {
    "num_candidates": (64, f"{BULLET_SCRIPT}:2"),
    "penalty": (100, f"{BULLET_SCRIPT}:1"),
    "discount": (None, f"the task's, 1: {LOCOMOTION}:230, 282"),
    "value_steps": (None, f"as many: {LOCOMOTION}:218, 225, 270, 277"),
    "value_learning_rate": (1e-3, f"{LOCOMOTION}:219, 226, 271, 278"),
    "termination_penalty": (0, f"{LOCOMOTION}:217, 224, 269, 276"),
}
REFERENCE = {
    "safe/Pendulum-v0": TOYS
    | {"horizon": (128, f"{TOY_SCRIPT}:5"), "budget_scale": (0.336, "cost.py:54")},
    "safe/Reacher-v0": TOYS | {"horizon": (32, f"{TOY}:25"), "budget_scale": (0.728, "cost.py:56")},
    "safe/HalfCheetah-v0": ROBOTS
    | {
        "horizon": (4, f"{LOCOMOTION}:297, 302, 306, 311"),
        "width_mults": ((1, 4, 8), f"{LOCOMOTION}:298, 303, 312"),
        "guidance_scale": (1e-3, f"{LOCOMOTION}:307"),
        "num_unguided_steps": (4, f"{LOCOMOTION}:308"),
        "termination_penalty": (0, "without effect: no episode terminates"),
    },
    "safe/Hopper-v0": ROBOTS,
    "safe/Walker2d-v0": ROBOTS,
    "safe/CarCircle-v0": BULLET,
    "safe/BallReach-v0": BULLET,
}


@pytest.mark.parametrize("env_id", REFERENCE)
def test_reference_has_the_values_of_the_authors_code(env_id):
    config = METHODS["trebi"].config("reference", env_id)
    for name, (value, source) in (EVERYWHERE | REFERENCE[env_id]).items():
        assert getattr(getattr(config, GROUP_OF[name]), name) == value, f"{name}: {source}"


@pytest.mark.parametrize(("kind", "discount"), [(ROBOTS, 0.99), (BULLET, 1.0)])
def test_where_the_discount_is_the_tasks_it_is_that_of_the_scripts(kind, discount):
    tasks = [task for task, of in REFERENCE.items() if of["discount"] == kind["discount"]]
    assert tasks and {TASKS[task].cost_discount for task in tasks} == {discount}


def test_every_task_of_the_paper_has_its_values():
    assert REFERENCE.keys() == {task for task, spec in TASKS.items() if spec.of_paper}
