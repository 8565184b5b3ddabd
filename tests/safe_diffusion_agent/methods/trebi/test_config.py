import json
from dataclasses import asdict, fields

import pytest

from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.trebi.config import GROUPS, SETTINGS, config_from_json
from safe_diffusion_agent.methods.trebi.presets import PRESETS, preset_config
from safe_diffusion_agent.settings import difference
from safe_envs import TASKS


def test_settings_of_the_groups_do_not_overlap():
    assert len(SETTINGS) == sum(len(fields(cls)) for cls in GROUPS.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset):
    config = preset_config(preset, "safe/Pendulum-v0")
    assert config_from_json(json.loads(json.dumps(asdict(config)))) == config


def test_paper_preset_is_the_papers_text():
    """App. D on Pendulum; Alg. 1 line 11: guidance on the mean, once per step, at every step."""
    config = preset_config("paper", "safe/Pendulum-v0")
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
    config = preset_config(preset, env_id)
    assert config.planner.penalty == (1000 if "Pendulum" in env_id or "Reacher" in env_id else 100)
    assert config.model.horizon == (128 if "Pendulum" in env_id else 32)


def test_small_is_the_papers_method():
    """It differs from `paper` in sizes only."""
    paper, small = preset_config("paper"), preset_config("small")
    sizes = {"network", "diffusion_steps", "num_steps", "batch_size", "learning_rate", "decay_from",
             "ema_interval", "ema_start", "num_candidates"}  # fmt: skip
    differing = {
        name
        for name, group in SETTINGS.items()
        if getattr(getattr(paper, group), name) != getattr(getattr(small, group), name)
    }
    assert differing == sizes


def test_order_of_precedence_is_preset_task_user():
    assert preset_config("reference").planner.num_candidates == 64
    assert preset_config("reference", "safe/Pendulum-v0").planner.num_candidates == 1
    config = preset_config("reference", "safe/Pendulum-v0", num_candidates=5)
    assert config.planner.num_candidates == 5


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="no preset 'papr'. Did you mean 'paper'"):
        preset_config("papr")
    with pytest.raises(UnknownNameError, match="no setting 'penalti'. Did you mean 'penalty'"):
        preset_config("paper", penalti=3)


@pytest.mark.parametrize(
    "setting",
    [{"horizon": 12}, {"horizon": 1}, {"num_candidates": 0}, {"penalty": -1.0}, {"num_steps": 0},
     {"learning_rate": 0.0}, {"cost_discount": 1.5}, {"cost_quantile": 0.5}, {"ema_decay": 2.0},
     {"cost_quantiles": (1.0,)}, {"diffusion_steps": 0}, {"guidance_repeats": 0}],
)  # fmt: skip
def test_values_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="should be"):
        preset_config("paper", **setting)


def test_what_differs_is_named_and_nothing_else():
    stored = {"seed": 0, "config": {"preset": "quick", "planner": {"risk": None, "clip": True}}}
    given = {"seed": 0, "config": {"preset": "quick", "planner": {"risk": 0.1, "clip": True}}}
    assert difference(stored, given) == "config.planner.risk is None, not 0.1"
