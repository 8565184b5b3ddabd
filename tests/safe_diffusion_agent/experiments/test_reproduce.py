"""Studies at toy size, from the plan to the tables."""

import csv
import json
from dataclasses import replace

import pytest

from safe_diffusion_agent.cli.display import show_comparison
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.data.writing import update_metadata
from safe_diffusion_agent.evaluation.tables import read_table
from safe_diffusion_agent.experiments import catalog, jobs, reproduce
from safe_diffusion_agent.experiments.catalog import STUDIES
from safe_diffusion_agent.experiments.jobs import Job, run_all
from safe_diffusion_agent.experiments.reproduce import jobs_of, plan
from safe_diffusion_agent.experiments.rows import Row, RowRun, Study

PENDULUM = CollectConfig(env_id="safe/Pendulum-v0", num_steps=400)
TOY = {"num_steps": 4, "batch_size": 16}


@pytest.fixture
def toy_dataset(tiny_dataset, monkeypatch):
    """Takes the place of all datasets, and of collecting them."""
    monkeypatch.setattr(reproduce, "dataset_id_of", lambda _: tiny_dataset)
    done = Job(name="data", group="data", is_done=lambda: True, run=pytest.fail)
    monkeypatch.setattr(reproduce, "collect_job", lambda *_: done)
    measured = []
    monkeypatch.setattr(reproduce, "measure_max_budget", measured.append)
    return measured


def study_with(methods, **evaluation):
    return Study(
        title="toy",
        rows=tuple(
            Row(label=m, dataset=PENDULUM, method=m, settings=TOY, evaluation=evaluation)
            for m in methods
        ),
    )


def options_in(folder):
    return {"out": folder / "out", "runs": folder / "runs", "device": "cpu"}


def test_the_plan_of_a_figure(tmp_path):
    runs = plan("fig1", scale="paper", runs=tmp_path, tasks=["safe/Pendulum-v0"], methods=["bc"])
    assert len({run.folder for run in runs}) == 3
    runs = plan("fig7", runs=tmp_path)
    assert len({run.folder for run in runs}) == 1 and len({run.out for run in runs}) == 4


def test_planner_variants_share_a_training_and_methods_a_figure(tmp_path):
    runs = plan("fig4b", runs=tmp_path, methods=["trebi:small", "trebi"])
    assert len({run.out for run in runs}) == 8
    assert len({run.folder for run in runs}) == 2
    assert len({run.folder for run in plan("fig4a", runs=tmp_path)}) == 5


@pytest.mark.parametrize("name", STUDIES)
def test_no_two_jobs_write_the_same_files(name, tmp_path):
    planned = [job for run in plan(name, runs=tmp_path) for job in jobs_of(run)]
    assert len({job.name for job in planned}) <= len(planned)
    places = [(run.folder, run.out, run.row.parts) for run in plan(name, runs=tmp_path)]
    assert len(set(places)) == len(places)
    assert not any(job.is_done() for job in planned)


def test_jobs_that_share_a_training_run_one_after_the_other(tiny_dataset, tmp_path):
    settings = {"num_steps": 2, "batch_size": 4, "horizon": 8}
    evaluation = {"num_episodes": 1, "ratios": (1.0,), "seed": 0}
    runs = [
        RowRun(
            row=Row(
                label=f"{k}", dataset=PENDULUM, preset="quick", settings=settings, seed=0,
                load_settings=load_settings, evaluation=evaluation,
            ),
            dataset_id=tiny_dataset, folder=tmp_path, out=tmp_path / f"{k}", device="cpu",
        )
        for k, load_settings in enumerate(({}, {"penalty": 7.0}, {"num_candidates": 2}))
    ]  # fmt: skip
    planned = [job for run in runs for job in jobs_of(run)]
    run_all(planned, workers=2)
    for run, job in zip(runs, planned, strict=True):
        assert job.is_done()
        document = json.loads((run.out / "results.json").read_text())
        assert run.row.load_settings.items() <= document["agent"]["config"]["planner"].items()
    changed = replace(runs[0], row=replace(runs[0].row, evaluation={**evaluation, "seed": 1}))
    assert not jobs_of(changed)[0].is_done()


@pytest.mark.parametrize("random_ratios", [False, True])
def test_a_study_is_made_once(toy_dataset, tmp_path, monkeypatch, capsys, random_ratios):
    at_random = {"random_ratios": True, "num_episodes": 5} if random_ratios else {}
    monkeypatch.setitem(catalog.STUDIES, "toy", study_with(("caps", "bc"), **at_random))
    options = options_in(tmp_path)
    folder = reproduce.reproduce("toy", seeds=[0, 1], num_episodes=2, **options)
    assert len(toy_dataset) == 1  # it is not of the paper's size
    about = json.loads((folder / "about.json").read_text())
    assert about["scale"]["seeds"] == [0, 1] and about["versions"]["torch"]
    data = about["datasets"]["safe/Pendulum-v0 replay"]
    assert data["dataset_id"] == toy_dataset[0] and len(about["evaluated_at_commits"]) == 1
    assert about["methods"] == ["caps:quick", "bc:quick"]
    assert about["rows"][0]["settings"] == TOY and about["rows"][0]["seed"] == 0
    assert 0 <= data["share_within"]["0.2"] <= data["share_within"]["1"] <= 1
    with (folder / "episodes.csv").open() as file:
        lines = list(csv.DictReader(file))
    per_seed = {"caps": 2, "bc": 2} if random_ratios else {"caps": 10, "bc": 2}
    for method, number in per_seed.items():
        assert len([line for line in lines if line["method"] == method]) == 2 * number
    assert (folder / "toy.png").stat().st_size > 5_000
    assert (folder / "overall.csv").exists() != random_ratios

    show_comparison(read_table(folder / "summary.csv"))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("caps") and "%" in line for line in lines)

    monkeypatch.setattr(jobs, "_run_group", pytest.fail)
    reproduce.reproduce("toy", seeds=[0, 1], num_episodes=2, **options)


def test_unconstrained_methods_alone_are_a_picture_of_lines(toy_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.STUDIES, "toy", study_with(("bc",)))
    folder = reproduce.reproduce("toy", num_episodes=2, **options_in(tmp_path))
    assert (folder / "toy.png").stat().st_size > 5_000
    (line,) = read_table(folder / "overall.csv")
    assert line["method"] == "bc" and line["num_episodes"] == 2


def test_results_that_are_damaged_are_named(toy_dataset, tmp_path):
    (run, *_) = plan("fig1", methods=["bc"], runs=tmp_path)
    run.out.mkdir(parents=True)
    (run.out / "results.json").touch()
    with pytest.raises(ValueError, match=f"{run.out}/results.json is damaged"):
        jobs_of(run)[0].is_done()


def test_evaluations_of_several_maximum_budgets_do_not_stand_side_by_side(
    toy_dataset, tmp_path, monkeypatch
):
    monkeypatch.setitem(catalog.STUDIES, "toy", study_with(("caps", "bc")))
    options = options_in(tmp_path) | {"num_episodes": 1}
    reproduce.reproduce("toy", methods=["caps"], **options)
    update_metadata(toy_dataset[0], {"max_budget": 7.0})
    try:
        with pytest.raises(ValueError, match=r"one maximum budget: .*caps.* has 60, .*bc.* has 7"):
            reproduce.reproduce("toy", **options)
    finally:
        update_metadata(toy_dataset[0], {"max_budget": 60.0})


def test_a_mistake_is_found_before_any_work(toy_dataset, tmp_path):
    with pytest.raises(ValueError, match="There is no setting"):
        reproduce.reproduce("fig4b", methods=["caps"], **options_in(tmp_path))
    assert not list(tmp_path.iterdir())
