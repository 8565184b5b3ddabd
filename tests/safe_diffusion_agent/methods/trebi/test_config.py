import json
from dataclasses import asdict, fields

import pytest

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.config import (
    FrontierConfig,
    ModelConfig,
    PlannerConfig,
    TrainingConfig,
    TrebiConfig,
)
from safe_diffusion_agent.methods.trebi.presets import PRESETS
from safe_diffusion_agent.settings import difference, from_json, group_of_setting, override
from safe_envs import TASKS

SETTINGS = group_of_setting(TrebiConfig)
GROUPS = (ModelConfig, TrainingConfig, FrontierConfig, PlannerConfig)

# Settings that are read with one judge, or one network, alone.
VALUES_ALONE = {
    "time_to_go", "cost_quantiles", "standardize_values", "mlp_value_width", "clean_share",
    "calibration_share", "termination_penalty", "guidance_scale", "penalty", "penalty_ramp",
    "guidance_on", "guidance_repeats", "num_unguided_steps", "score", "cost_quantile",
    "value_learning_rate", "value_steps",
}  # fmt: skip
FRONTIER_ALONE = {
    "num_models", "model_width", "critic_width", "actor_spread", "critic_plans", "bound",
    "idle_plan", "imitation_steps",
    "model_steps", "model_batch_size", "model_learning_rate", "held_out_share", "model_tolerance",
    "critic_steps", "critic_batch_size", "critic_learning_rate", "target_rate", "real_steps",
    "real_expectile", "branch_expectile", "branch_share", "min_branch_steps",
    "max_margin", "num_branches", "num_diffusion_branches", "branch_interval",
    "calibration_episodes",
}  # fmt: skip
UNET_ALONE = {"base_width", "width_mults"}
MLP_ALONE = {"mlp_width", "mlp_blocks", "mlp_value_width"}
IGNORED = {
    ("values", "unet"): FRONTIER_ALONE | MLP_ALONE,
    ("values", "mlp"): FRONTIER_ALONE | UNET_ALONE,
    ("frontier", "unet"): VALUES_ALONE | MLP_ALONE,
    ("frontier", "mlp"): VALUES_ALONE | UNET_ALONE,
}
PRESET_OF = {
    ("values", "unet"): "paper", ("values", "mlp"): "quick", ("frontier", "mlp"): "frontier",
}  # fmt: skip


def test_settings_of_the_groups_do_not_overlap():
    names = [field.name for group in GROUPS for field in fields(group)]
    assert sorted(SETTINGS) == sorted(names) == sorted(set(names))


def valid_value(config, setting):
    return getattr(getattr(config, SETTINGS[setting]), setting)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("judge", "network"), IGNORED)
def test_a_setting_that_would_have_no_effect_is_refused_and_no_other(judge, network, setting):
    """Whatever its value: also as it is already."""
    base = METHODS["trebi"].config("frontier" if judge == "frontier" else "quick")
    config = override(base, {"network": network})
    assert (config.model.judge, config.model.network) == (judge, network)
    preset = PRESET_OF.get((judge, network))
    given = {setting: valid_value(config, setting)}
    if setting not in IGNORED[judge, network]:
        assert override(config, given) == config
        if preset:
            given = {setting: valid_value(METHODS["trebi"].config(preset), setting)}
            assert METHODS["trebi"].config(preset, **given) == METHODS["trebi"].config(preset)
        return
    with pytest.raises(ValueError, match=f"^{setting} has no effect with (judge|network)='"):
        override(config, given)
    if preset:
        with pytest.raises(ValueError, match=f"^{setting} has no effect with (judge|network)='"):
            METHODS["trebi"].config(preset, "safe/Pendulum-v0", **given)


def test_settings_go_with_the_judge_and_the_network_that_are_given_beside_them():
    config = METHODS["trebi"].config("quick", network="unet", base_width=16, width_mults=(1, 2))
    assert config.model.base_width == 16
    with pytest.raises(ValueError, match="mlp_width has no effect with network='unet'"):
        METHODS["trebi"].config("quick", network="unet", mlp_width=16)
    values = {"cost_quantiles": (), "cost_quantile": None, "time_to_go": False}
    with pytest.raises(ValueError, match="it needs judge='values'"):
        METHODS["trebi"].config("quick", judge="frontier", **values)


@pytest.mark.parametrize("setting", [field.name for field in fields(PlannerConfig)])
def test_loading_refuses_settings_that_would_have_no_effect(setting):
    """The agent that comes with the package judges by the frontier."""
    value = {"penalty": 7, "guidance_scale": 3, "guidance_repeats": 5, "score": "noised",
             "penalty_ramp": True, "guidance_on": "input", "num_unguided_steps": 2}  # fmt: skip
    if setting in VALUES_ALONE:
        given = {setting: value.get(setting)}
        with pytest.raises(ValueError, match=f"^{setting} has no effect with judge='frontier'"):
            TrebiAgent.load("pendulum", **given)
    else:
        config = TrebiAgent.load("pendulum").config
        given = {setting: valid_value(config, setting)}
        assert TrebiAgent.load("pendulum", **given).config == config


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset):
    config = METHODS["trebi"].config(preset, "safe/Pendulum-v0")
    assert from_json(TrebiConfig, json.loads(json.dumps(asdict(config)))) == config


def test_noised_plans_are_not_scored_with_fewer_sampling_steps():
    """The values are asked at one diffusion step, and the plans would be noised to another."""
    base = METHODS["trebi"].config("reference")
    assert override(base, {"sampling_steps": base.model.diffusion_steps})
    with pytest.raises(ValueError, match='score should be "final"'):
        override(base, {"sampling_steps": 5})


def test_settings_that_are_gone_are_left_out():
    config = METHODS["trebi"].config("frontier", "safe/Pendulum-v0")
    document = asdict(config)
    document["frontier"]["alone_expectile"] = 0.6
    assert from_json(TrebiConfig, document) == config


def test_paper_preset_is_the_papers_text():
    """App. D on Pendulum; Alg. 1 line 11: guidance on the mean, once per step, at every step."""
    config = METHODS["trebi"].config("paper", "safe/Pendulum-v0")
    assert config.model.horizon == 128
    assert config.planner.penalty == 1000
    assert config.planner.guidance_scale == 0.1
    assert config.training.num_steps == 1_000_000
    assert config.planner.guidance_on == "mean"
    assert config.planner.guidance_repeats == 1
    assert config.planner.num_unguided_steps == 0
    assert config.planner.score == "final"
    improvements_off = {
        "time_to_go": False, "cost_quantiles": (), "standardize_values": False,
        "windows": "inside", "clean_share": 0.0, "cost_quantile": None, "budget_margin": 0.0,
        "clip": False, "calibration_share": 0.0, "risk": None,
    }  # fmt: skip
    for name, off in improvements_off.items():
        assert getattr(getattr(config, SETTINGS[name]), name) == off


@pytest.mark.parametrize("preset", ["paper", "small"])
@pytest.mark.parametrize("env_id", TASKS)
def test_penalty_and_horizon_of_the_tasks(preset, env_id):
    """App. D: n is 1000 on Pendulum and Reacher, else 100; H is 128 on Pendulum, else 32."""
    config = METHODS["trebi"].config(preset, env_id)
    assert config.planner.penalty == (1000 if "Pendulum" in env_id or "Reacher" in env_id else 100)
    assert config.model.horizon == (128 if "Pendulum" in env_id else 32)


def test_small_is_the_papers_method():
    """It differs from `paper` in sizes only."""
    paper, small = METHODS["trebi"].config("paper"), METHODS["trebi"].config("small")
    sizes = {"network", "diffusion_steps", "num_steps", "batch_size", "learning_rate", "decay_from",
             "ema_interval", "ema_start", "num_candidates"}  # fmt: skip
    differing = {
        name
        for name, group in SETTINGS.items()
        if getattr(getattr(paper, group), name) != getattr(getattr(small, group), name)
    }
    assert differing == sizes


def test_order_of_precedence_is_preset_task_user():
    assert METHODS["trebi"].config("reference").planner.num_candidates == 64
    assert METHODS["trebi"].config("reference", "safe/Pendulum-v0").planner.num_candidates == 1
    config = METHODS["trebi"].config("reference", "safe/Pendulum-v0", num_candidates=5)
    assert config.planner.num_candidates == 5


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="no preset 'papr'. Did you mean 'paper'"):
        METHODS["trebi"].config("papr")
    with pytest.raises(UnknownNameError, match="no setting 'penalti'. Did you mean 'penalty'"):
        METHODS["trebi"].config("paper", penalti=3)


@pytest.mark.parametrize(
    "setting",
    [{"horizon": 12}, {"horizon": 1}, {"num_candidates": -1}, {"penalty": -1.0}, {"num_steps": 0},
     {"learning_rate": 0.0}, {"cost_discount": 1.5}, {"cost_quantile": 0.5}, {"ema_decay": 2.0},
     {"cost_quantiles": (1.0,)}, {"diffusion_steps": 0}, {"guidance_repeats": 0},
     {"value_steps": 0}, {"value_learning_rate": 0.0}],
)  # fmt: skip
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="should be"):
        METHODS["trebi"].config("paper", **setting)


def test_what_differs_is_named_and_nothing_else():
    stored = {"seed": 0, "config": {"preset": "quick", "planner": {"risk": None, "clip": True}}}
    given = {"seed": 0, "config": {"preset": "quick", "planner": {"risk": 0.1, "clip": True}}}
    assert difference(stored, given) == "config.planner.risk is None, not 0.1"
