"""The catalog: its rows name what exists, and are what the studies are about."""

from dataclasses import replace

import pytest

from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.experiments.catalog import STUDIES, study_of
from safe_diffusion_agent.experiments.rows import (
    SCALES,
    Choice,
    Study,
    dataset_id_of,
    is_standard_size,
    standard_dataset,
)
from safe_diffusion_agent.experiments.trust import PARTS
from safe_diffusion_agent.methods.table import METHODS

PENDULUM = ["safe/Pendulum-v0"]


def rows_of(name, **choice):
    return Choice(**choice).rows_of(STUDIES[name])


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_names_methods_settings_and_parts_that_exist(name):
    for scale in SCALES if STUDIES[name].scale is None else (None,):
        rows = rows_of(name, scale=scale)
        assert all(set(row.parts) <= set(PARTS) for row in rows)
        identities = [(row.label, dataset_id_of(row.dataset), row.seed) for row in rows]
        assert len(set(identities)) == len(identities), "labels tell rows apart"


def test_the_rows_of_the_first_figure():
    rows = rows_of("fig1", scale="paper", tasks=PENDULUM, methods=["bc"])
    assert [row.seed for row in rows] == [0, 1, 2]
    assert {dataset_id_of(row.dataset) for row in rows} == {"safe-envs/pendulum/sac-replay-v0"}
    assert rows[0].evaluation == {"seed": 0, "num_episodes": 60, "ratios": (1.0,)}
    (row,) = rows_of("fig1", tasks=PENDULUM, methods=["trebi:reference"])
    assert (row.method, row.preset, row.label) == ("trebi", "reference", "trebi:reference")
    assert [row.label for row in rows_of("fig7")] == ["every 1", "every 2", "every 3", "every 4"]
    with pytest.raises(ValueError, match="none of these datasets. It has: safe/CarCircle"):
        rows_of("fig3", tasks=PENDULUM)
    with pytest.raises(UnknownNameError, match="study 'fig13'"):
        study_of("fig13")


def test_methods_take_the_place_of_a_figures_own():
    rows = rows_of("fig4b", methods=["trebi:small", "trebi"])
    labels = [row.label for row in rows]
    assert labels[:2] == ["trebi:small, n = 10", "trebi:small, n = 100"]
    assert len(set(labels)) == 8
    assert [row.label for row in rows_of("fig4a")][0] == "H = 8"
    rows = rows_of("fig1", methods=["caps", "cpq"])
    assert [row.label for row in rows] == ["caps", "cpq"] * 2
    assert [row.task for row in rows[::2]] == ["safe/Pendulum-v0 replay", "safe/Reacher-v0 replay"]


def test_an_interval_between_plans_is_refused_before_the_work():
    with pytest.raises(ValueError, match="needs a method that plans; bc does not"):
        rows_of("fig7", methods=["bc"])
    row = STUDIES["fig7"].rows[0]
    long = replace(row, evaluation={"control_interval": 17}, preset="frontier", settings={})
    with pytest.raises(ValueError, match="the plans of trebi:frontier, 16. Received 17"):
        Choice().rows_of(Study(title="long", rows=(long,)))


def test_seeds_and_episodes_can_be_chosen():
    rows = rows_of("frontier", seeds=[5], num_episodes=2)
    assert {row.seed for row in rows} == {5}
    assert {row.evaluation["num_episodes"] for row in rows} == {2}
    assert {row.evaluation["seed"] for row in rows} == {3000}
    for num, given in ((100, None), (2, 2)):
        rows = rows_of("fig8", num_episodes=given)
        assert {row.evaluation["num_episodes"] for row in rows} == {num}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"num_episodes": 0}, "num_episodes should be positive. Received 0"),
        ({"max_steps": 0}, "num_steps should be at least"),
        ({"scale": "papr"}, "Did you mean 'paper'"),
    ],
)
def test_what_is_asked_for_is_never_left_out(choice, message):
    with pytest.raises(ValueError, match=message):
        rows_of("fig1", **choice)
    with pytest.raises(ValueError, match="has a scale of its own: choose seeds"):
        rows_of("ablation", scale="paper")


def test_a_dataset_that_is_cut_has_an_id_of_its_own():
    row = rows_of("fig2", max_steps=30_000, methods=["bc"])[0]
    assert dataset_id_of(row.dataset) == "safe-envs/halfcheetah/medium-30000-v0"
    assert (row.dataset.num_steps, row.dataset.sac_steps) == (30_000, 30_000)
    assert not is_standard_size(row.dataset)
    (row,) = rows_of("fig2", scale="paper", seeds=[0], methods=["bc"], qualities=["medium"])
    assert dataset_id_of(row.dataset) == "safe-envs/halfcheetah/medium-v0"
    other_seed = replace(standard_dataset("safe/Pendulum-v0"), seed=1)
    assert is_standard_size(other_seed)
    assert dataset_id_of(other_seed) == "safe-envs/pendulum/sac-replay-seed1-v0"


def test_the_papers_planner_is_the_small_preset_as_it_is():
    for name in ("frontier", "frontier-random", "tasks", "ablation"):
        (label,) = {row.label for row in STUDIES[name].rows if "paper" in row.label}
        for row in (row for row in STUDIES[name].rows if row.label == label):
            assert row.name == "trebi:small" and not row.settings and not row.load_settings


def test_the_ladder_ends_at_quick():
    ladder = [row for row in rows_of("ablation") if row.name == "trebi:small"]
    quick = METHODS["trebi"].config("quick", "safe/Pendulum-v0")
    last = METHODS["trebi"].config(
        "small", "safe/Pendulum-v0", **ladder[-1].settings, **ladder[-1].load_settings
    )
    assert ladder[-1].label.endswith("(= quick)")
    assert replace(last, preset="quick") == quick


def test_rows_of_the_discount_differ_from_small_as_the_authors_script_does():
    """The discount alone, then the planner of `reference`, then its penalty."""
    small, reference = (
        METHODS["trebi"].config(preset, "safe/Pendulum-v0") for preset in ("small", "reference")
    )
    rows = rows_of("discount")
    configs = {
        row.label: METHODS["trebi"].config(
            "small", "safe/Pendulum-v0", **row.settings, **row.load_settings
        )
        for row in rows
    }
    text, discount, planner, *penalties = configs.values()
    assert text == small
    names = "discount", "cost_discount"
    model = replace(small.model, **{name: getattr(reference.model, name) for name in names})
    scale = reference.planner.budget_scale
    assert (model.discount, model.cost_discount, scale) == (0.99, 0.99, 0.336)
    scaled = replace(small.planner, budget_scale=scale)
    assert discount == replace(small, model=model, planner=scaled)
    assert planner == replace(discount, planner=reference.planner)
    assert [config.planner.penalty for config in penalties] == [10, 100, 10_000]
    for config in penalties:
        assert replace(config.planner, penalty=1000.0) == scaled and config.model == model
    assert {row.seed for row in rows if row.label in [*configs][:3]} == {0, 1}


def test_fast_rows_are_the_presets():
    rows = {row.label: row for row in rows_of("fast", tasks=PENDULUM)}
    for name in ("fast", "realtime"):
        settings = METHODS["trebi"].config("frontier", **rows[name].load_settings).planner
        assert settings == METHODS["trebi"].config(name).planner
