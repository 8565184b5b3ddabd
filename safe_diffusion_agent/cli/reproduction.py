"""The commands on studies: `trebi reproduce` and `trebi report`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from safe_diffusion_agent.cli.display import console, progress_bars, show_comparison, show_rows
from safe_diffusion_agent.cli.options import Device, Jobs, parse_seeds

app = typer.Typer()


@app.command(epilog="Example: trebi reproduce fig1 --tasks safe/Pendulum-v0 --seeds 0,1")
def reproduce(
    study: Annotated[
        str | None, typer.Argument(help="A figure of the paper, or a study of ours; none: a list.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results/reproduce"),
    runs: Annotated[Path, typer.Option(help="Folder of the jobs.")] = Path("runs/reproduce"),
    scale: Annotated[
        str | None, typer.Option(help="Of the paper's figures: small (unless you say so) or paper.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these, with commas between.")] = None,
    qualities: Annotated[
        str | None, typer.Option(help="Only these datasets, like medium-replay.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Instead of the study's, like trebi:frontier,caps.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the trainings.")] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Per budget and seed; in all, where budgets are drawn.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Cut datasets, and the training of their SAC, to this.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rows, run none.")] = False,
    jobs: Jobs = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster to run on; local starts one of --jobs CPUs."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Make a study: missing datasets, trainings, evaluations, then its tables and picture.

    Run it again after an interruption, and it continues.
    """
    from safe_diffusion_agent.evaluation.tables import read_table
    from safe_diffusion_agent.experiments.catalog import STUDIES
    from safe_diffusion_agent.experiments.reproduce import jobs_of, plan
    from safe_diffusion_agent.experiments.reproduce import reproduce as reproduce_study

    if study is None:
        table = Table("study", "", "rows", box=None)
        for name, known in STUDIES.items():
            table.add_row(name, known.title, f"{len(known.rows)}")
        console.print(table)
        return
    options: dict[str, Any] = {
        "runs": runs,
        "scale": scale,
        "tasks": tasks and tasks.split(","),
        "qualities": qualities and qualities.split(","),
        "methods": methods and methods.split(","),
        "seeds": None if seeds is None else parse_seeds(seeds),
        "num_episodes": episodes,
        "max_steps": max_steps,
        "device": device,
    }
    if dry_run:
        rows = plan(study, **options)
        show_rows([(r.row, r.dataset_id, all(job.is_done() for job in jobs_of(r))) for r in rows])
        return
    with progress_bars() as progress:
        folder = reproduce_study(
            study, out=out, workers=jobs, ray_address=ray, progress=progress, **options
        )
    if (folder / "summary.csv").exists():
        show_comparison(read_table(folder / "summary.csv"))
    written = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"written: {folder}: {written}")


@app.command(epilog="Example: trebi report --check")
def report(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if something is out of date.")
    ] = False,
    root: Annotated[Path, typer.Option(help="Folder with results/ and README.md.")] = Path("."),
) -> None:
    """Write the pages of the stored results, and fill in the tables of README and documentation."""
    from safe_diffusion_agent.experiments.report import report as write_report

    changed = write_report(root, check=check)
    for path in changed:
        console.print(f"{'out of date' if check else 'written'}: {path}", highlight=False)
    if check and changed:
        raise typer.Exit(1)
