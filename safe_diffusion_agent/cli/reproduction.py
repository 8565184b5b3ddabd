"""The command `trebi reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from safe_diffusion_agent.cli.display import console, progress_bars, show_comparison
from safe_diffusion_agent.cli.options import Device, parse_seeds

app = typer.Typer()


@app.command(epilog="Example: trebi reproduce fig1 --tasks safe/Pendulum-v0 --seeds 0,1")
def reproduce(
    figure: Annotated[str, typer.Argument(help="fig1, fig2, fig3, fig4a, ... of the paper.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results/reproduce"),
    runs: Annotated[Path, typer.Option(help="Folder of the jobs.")] = Path("runs/reproduce"),
    scale: Annotated[str, typer.Option(help="small or paper.")] = "small",
    tasks: Annotated[str | None, typer.Option(help="Only these, with commas between.")] = None,
    qualities: Annotated[
        str | None, typer.Option(help="Only these datasets, like medium-replay.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Instead of the figure's, like trebi:frontier,caps.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the trainings.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Per budget and seed.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Cut datasets, and the training of their SAC, to this.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster to run on; local starts one of --jobs CPUs."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Make a figure of the paper again: missing datasets, trainings, evaluations, then the picture.

    Run it again after an interruption, and it continues.
    """
    from safe_diffusion_agent.evaluation.tables import read_table
    from safe_diffusion_agent.experiments.reproduce import reproduce as reproduce_figure

    with progress_bars() as progress:
        folder = reproduce_figure(
            figure,
            out=out,
            runs=runs,
            scale=scale,
            tasks=tasks and tasks.split(","),
            qualities=qualities and qualities.split(","),
            methods=methods and methods.split(","),
            seeds=None if seeds is None else parse_seeds(seeds),
            num_episodes=episodes,
            max_steps=max_steps,
            workers=jobs,
            ray_address=ray,
            device=device,
            progress=progress,
        )
    show_comparison(read_table(folder / "summary.csv"))
    console.print(f"written: {folder}/{figure}.png, summary.csv, episodes.csv, about.json")
