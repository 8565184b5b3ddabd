"""Pages and tables of stored results: those of the repository, and small ones made here."""

import json
from pathlib import Path

import pytest

from safe_diffusion_agent.cli import main
from safe_diffusion_agent.data.manifest import BY_EXPERTS, MANIFEST
from safe_diffusion_agent.data.qualities import default_dataset_id
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.evaluation.protocol import EpisodeResult
from safe_diffusion_agent.evaluation.tables import Evaluated, overall, summary, tidy, to_table
from safe_diffusion_agent.experiments.markdown import Column, cells, made_by, rounded, share, table
from safe_diffusion_agent.experiments.pages.studies import studies_page
from safe_diffusion_agent.experiments.report import filled, report
from safe_diffusion_agent.methods.table import METHODS
from safe_envs import TASKS

ROOT = Path(__file__).parents[3]
ABOUT = {
    "command": "trebi reproduce toy", "commit": "1234567", "hardware": "a machine",
    "versions": {"torch": "2.0"},
}  # fmt: skip


def test_pages_and_tables_of_the_repository_are_up_to_date():
    assert report(ROOT, check=True) == []


def test_every_task_of_the_manifest_has_a_card():
    folder = ROOT / "results" / "datasets"
    rows = json.loads((folder / "datasets.json").read_text())["datasets"]
    configs = (*MANIFEST, *BY_EXPERTS)
    ids = [default_dataset_id(c.env_id, c.quality, c.expert) for c in configs]
    assert {row["dataset_id"] for row in rows} <= set(ids)
    of_paper = {c.env_id[len("safe/") : -len("-v0")] for c in MANIFEST}
    assert {row["task"] for row in rows if "-by-" not in row["dataset_id"]} == of_paper
    for row in rows:
        text = (folder / row["folder"] / "card.md").read_text()
        assert row["fingerprint"] in text
        assert (folder / row["folder"] / "card.png").exists()


def test_tables_have_a_line_per_item_and_cells_are_escaped():
    columns = [Column("|x|", lambda item: f"|{item}|"), Column("twice", lambda item: f"{2 * item}")]
    assert table(columns, [1, 2]).splitlines() == [
        r"| \|x\| | twice |", "| --- | --- |", r"| \|1\| | 2 |", r"| \|2\| | 4 |",
    ]  # fmt: skip
    assert table(cells("a", "b"), [["1", "two\nlines"]]).endswith("| 1 | two lines |")


def test_phrases():
    assert share(1, 48) == "1 of 48 (0.4% to 10.9%)"
    assert rounded(2714.9) == "2,710" and rounded(0.12345) == "0.123"
    assert made_by(ABOUT) == "Made by `trebi reproduce toy` on a machine; torch 2.0."
    old = ABOUT | {"command": "frontier.py", "commit": None}
    assert made_by(old, "trebi reproduce frontier") == (
        "Made by `python benchmarks/frontier.py` (commit cec653d or earlier; it is now "
        "`trebi reproduce frontier`) on a machine; torch 2.0."
    )


def test_a_folder_without_results_is_refused(tmp_path):
    """A check in the wrong folder would find nothing out of date."""
    (tmp_path / "README.md").write_text("no table")
    with pytest.raises(ValueError, match=r"should have a folder results/.* --root"):
        report(tmp_path, check=True)


def test_marked_tables_are_filled_in(tmp_path):
    (tmp_path / "results").mkdir()
    page = tmp_path / "docs" / "deep" / "page.md"
    page.parent.mkdir(parents=True)
    text = "before\n<!-- begin {0} -->\nold\n<!-- end {0} -->\nafter\n"
    page.write_text(text.format("tasks"))
    (tmp_path / "README.md").write_text(text.format("methods"))
    assert report(tmp_path, check=True) == ["README.md", "docs/deep/page.md"]
    assert "old" in page.read_text(), "a check writes nothing"
    report(tmp_path)
    assert report(tmp_path) == []
    assert all(f"| `{name}` |" in page.read_text() for name in TASKS)
    assert all(f"| `{name}` |" in (tmp_path / "README.md").read_text() for name in METHODS)
    assert filled("no table", tmp_path) == "no table"
    with pytest.raises(UnknownNameError, match="Did you mean 'tasks'"):
        filled(text.format("taks"), tmp_path)


def test_the_command_fails_if_something_is_out_of_date(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("<!-- begin tasks -->\n<!-- end tasks -->\n")
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        with pytest.raises(SystemExit) as exit_with:
            main(["report", "--root", str(tmp_path), *arguments])
        assert exit_with.value.code == code
    assert "out of date: README.md" in capsys.readouterr().out


def episode(ratio, cost, episode_return) -> EpisodeResult:
    return EpisodeResult(
        ratio=ratio, budget=10.0, episode=0, episode_return=episode_return, cost=cost,
        undiscounted_cost=cost, normalized_cost=cost / 10.0, over_budget=cost > 10.0, num_steps=5,
    )  # fmt: skip


def write_study(folder, methods):
    """A study of one task, with two episodes per method and budget."""
    task = "safe/Pendulum-v0 replay"
    runs = [
        Evaluated(
            task=task, method=method, seed=0,
            episodes=[episode(r, 5.0 * k, 10.0 * k) for r in (0.5, 1.0) for _ in range(2)],
        )
        for k, method in enumerate(methods, start=1)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    for name, rows in {
        "episodes": tidy(runs), "summary": summary(runs), "overall": overall(runs, num_resamples=5),
    }.items():  # fmt: skip
        (folder / f"{name}.csv").write_text(to_table(rows))
    data = {
        "dataset_id": "toy", "num_steps": 400, "num_episodes": 2, "mean_return": 1.0,
        "max_budget": 10.0, "share_within": {"0.5": 0.25, "1": 0.75},
    }  # fmt: skip
    about = ABOUT | {
        "title": "A toy", "scale": {"seeds": [0], "num_episodes": 2}, "methods": list(methods),
        "datasets": {task: data}, "evaluated_at_commits": ["1234567"],
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))


def test_the_page_of_studies(tmp_path):
    write_study(tmp_path / "fig1", ("trebi", "caps", "bc"))
    (tmp_path / "fig1" / "remarks.md").write_text("What it shows.\n\n(2026-01-01)\n")
    write_study(tmp_path / "fig5", ("bc",))
    write_study(tmp_path / "fig7", ("bc:quick, every 1", "trebi, every 2"))
    write_study(tmp_path / "fast", ("frontier", "fast"))
    text = studies_page(tmp_path)
    assert text.index("## fig1: A toy") < text.index("## fig5") < text.index("## fast")
    assert "What it shows.\n\n(2026-01-01)" in text
    assert "| `trebi` | 10 · 0% · 0.0 | 10 · 0% · 0.0 | 10 | 0 of 4 (0.0% to 49.0%) |" in text
    assert "| `caps` | 0 / 2 / 0; 0 |" in text, "caps returns more"
    assert text.count("Without a budget: bc") == 3
    assert "Without a budget: bc:quick, every 1 10 at cost 5;" in text
    assert "within the budgets: 25%, 75%" in text
    assert (
        "| `fast` | 20 · 0% · 0.0 | 20 · 0% · 0.0 | 20 | 0 of 4 (0.0% to 49.0%) | +10.0 ± 0.0 |"
        in text
    )
