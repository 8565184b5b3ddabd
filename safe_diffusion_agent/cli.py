"""The `trebi` command. Every command calls the library function of its name, and shows it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

app = typer.Typer(
    help="Safe offline reinforcement learning with a budget that is given at run time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

Seed = Annotated[int, typer.Option(help="Fixes the whole command, on one machine.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ... or auto.")]
Preset = Annotated[str, typer.Option(help="paper, reference or quick; see `trebi list`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting to change, as key=value; can be repeated."),
]
Ratios = Annotated[str, typer.Option(help="Budgets as shares of the maximum, with commas between.")]
NumEpisodes = Annotated[int, typer.Option("--episodes", help="Episodes per budget.")]


@app.command(epilog="Example: trebi collect safe/Pendulum-v0 --steps 20000 --seed 0")
def collect(
    env_id: Annotated[str, typer.Argument(help="A task of `trebi list`.")],
    steps: Annotated[int, typer.Option(help="Environment steps of SAC.")] = 20_000,
    seed: Seed = 0,
    dataset_id: Annotated[str | None, typer.Option(help="Minari id of the dataset.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what an interrupted collection needs.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another dataset of that id.")] = False,
) -> None:
    """Train an unconstrained SAC and store all that it saw as a Minari dataset."""
    from safe_diffusion_agent.collection import CollectConfig, default_dataset_id
    from safe_diffusion_agent.collection import collect as collect_dataset

    config = CollectConfig(env_id=env_id, num_steps=steps, seed=seed)
    dataset_id = dataset_id or default_dataset_id(env_id)
    state_dir = out or Path("runs") / "collections" / dataset_id.replace("/", "-")
    with _bar("collect") as progress:
        collect_dataset(
            config,
            dataset_id=dataset_id,
            state_dir=state_dir,
            overwrite=overwrite,
            progress=progress,
        )
    console.print(f"Dataset: {dataset_id}")


@app.command(epilog="Example: trebi train safe-envs/pendulum/sac-replay-v0 runs/pendulum")
def train(
    dataset_id: Annotated[str, typer.Argument(help="Minari id of a dataset with costs.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    preset: Preset = "quick",
    seed: Seed = 0,
    device: Device = "auto",
    cost_key: Annotated[str, typer.Option(help="Where the dataset has its costs.")] = "infos/cost",
    settings: Settings = None,
) -> None:
    """Train an agent on a Minari dataset."""
    from safe_diffusion_agent.pipeline import train as train_agent

    with _bar("train") as progress:
        train_agent(
            dataset_id,
            out,
            preset=preset,
            seed=seed,
            device=device,
            cost_key=cost_key,
            settings=_parse(settings),
            progress=progress,
        )
    console.print(f"Agent: {out}")


@app.command(epilog="Example: trebi evaluate pendulum --episodes 20 --out runs/evaluation")
def evaluate(
    agent: Annotated[str, typer.Argument(help="Folder of a run, or name of a pretrained agent.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results.")] = None,
    env_id: Annotated[str | None, typer.Option("--env", help="Task; default: the agent's.")] = None,
    ratios: Ratios = "0.2,0.4,0.6,0.8,1.0",
    episodes: NumEpisodes = 20,
    seed: Seed = 0,
    max_budget: Annotated[
        float | None, typer.Option(help="In cost units; default: task's.")
    ] = None,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Evaluate an agent under several budgets: table, results.json, episodes.csv, picture."""
    from safe_diffusion_agent import TrebiAgent
    from safe_diffusion_agent.evaluation import EvaluationConfig
    from safe_diffusion_agent.pipeline import evaluate as evaluate_agent

    loaded = TrebiAgent.load(agent, device=device, **_parse(settings))
    default_out = Path(agent) if Path(agent).is_dir() else Path("runs") / agent
    config = EvaluationConfig(
        ratios=_parse_ratios(ratios), num_episodes=episodes, seed=seed, max_budget=max_budget
    )
    folder = out or default_out / "evaluation"
    with _bar("evaluate") as progress:
        document = evaluate_agent(loaded, folder, env_id=env_id, config=config, progress=progress)
    _show(document, folder)


@app.command(epilog="Example: trebi run safe/Pendulum-v0 runs/pendulum --preset quick")
def run(
    env_id: Annotated[str, typer.Argument(help="A task of `trebi list`.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    preset: Preset = "quick",
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Environment steps to collect.")] = 20_000,
    dataset_id: Annotated[str | None, typer.Option(help="Minari id of the dataset.")] = None,
    ratios: Ratios = "0.2,0.4,0.6,0.8,1.0",
    episodes: NumEpisodes = 20,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Collect, train and evaluate. Run it again after an interruption, and it continues."""
    from safe_diffusion_agent.evaluation import EvaluationConfig
    from safe_diffusion_agent.pipeline import run as run_all

    document = run_all(
        env_id,
        out,
        preset=preset,
        seed=seed,
        num_steps=steps,
        dataset_id=dataset_id,
        device=device,
        settings=_parse(settings),
        evaluation=EvaluationConfig(ratios=_parse_ratios(ratios), num_episodes=episodes, seed=seed),
        progress_of=_bar,
    )
    _show(document, out / "evaluation")


@app.command(name="list", epilog="Example: trebi list")
def list_all() -> None:
    """List tasks, presets, pretrained agents and local datasets."""
    import minari

    from safe_diffusion_agent.agent import pretrained_names
    from safe_diffusion_agent.trebi.presets import PRESETS
    from safe_envs import TASKS

    table = Table("task", "cost of a step", "steps", "cost discount", "max. budget", box=None)
    for spec in TASKS.values():
        limits = (spec.max_episode_steps, spec.cost_discount, spec.max_budget)
        table.add_row(spec.id, spec.cost, *(f"{value:g}" for value in limits))
    console.print(table)
    console.print("\n[bold]presets[/]    " + ", ".join(PRESETS))
    console.print("[bold]pretrained[/] " + (", ".join(pretrained_names()) or "none"))
    console.print("[bold]datasets[/]   " + (", ".join(minari.list_local_datasets()) or "none"))


@contextmanager
def _bar(name: str) -> Iterator[Any]:
    """A progress bar; gives the function `progress(done, total, **values)` that moves it."""
    columns = (
        TextColumn("[bold]{task.description:<9}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("left", table_column=Column(no_wrap=True)),
        TextColumn("[dim]{task.fields[values]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True) as bars:
        task = bars.add_task(name, total=None, rate="", values="")
        started_at: int | None = None

        def progress(done: int, total: int, **values: float) -> None:
            nonlocal started_at
            if started_at is None:
                started_at = done - 1
                bars.update(task, completed=done - 1, total=total)
            elapsed = bars.tasks[0].elapsed or 0.0
            rate = f"{(done - started_at) / elapsed:.0f}/s" if elapsed > 0.5 else ""
            shown = "  ".join(f"{key} {value:.3g}" for key, value in values.items())
            bars.update(task, completed=done, total=total, rate=rate, values=shown)

        try:
            yield progress
        except KeyboardInterrupt:
            bars.stop()
            console.print("Interrupted. Run the same command again to continue.")
            raise typer.Exit(130) from None


def _show(document: dict[str, Any], folder: Path) -> None:
    names = ("budget", "ratio", "mean", "q1", "median", "q3", "max", "over", "95 %", "return")
    table = Table(
        *(Column(name, justify="right") for name in names), box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for row in document["budgets"]:
        cost, over = row["normalized_cost"], row["over_budget"]
        low, high = over["wilson_95"]
        table.add_row(
            f"{row['budget']:g}",
            f"{row['ratio']:g}",
            *(f"{cost[key]:.2f}" for key in ("mean", "q1", "median", "q3", "maximum")),
            f"{over['num_episodes']}/{row['num_episodes']}",
            f"{100 * low:.0f}-{100 * high:.0f} %",
            f"{row['mean_return']:.1f} ± {row['std_return']:.1f}",
        )
    console.print(table)
    console.print(
        "mean ... max: episode cost / budget. over: episodes over budget, with the 95 % Wilson "
        "interval of their share."
    )
    behavior = document["behavior_policy"]
    if behavior:
        console.print(
            f"behavior policy ({behavior['name']}): return {behavior['mean_return']:.1f}, "
            f"cost {behavior['mean_cost']:.1f}"
        )
    console.print(f"written: {folder}/results.json, episodes.csv, evaluation.png")


def _parse(settings: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; values are JSON, or else strings."""
    parsed: dict[str, Any] = {}
    for setting in settings or []:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--set should be key=value. Received {setting!r}.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        parsed[key] = tuple(value) if isinstance(value, list) else value
    return parsed


def _parse_ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--ratios should be numbers like 0.2,0.6. Received {text!r}.") from error


def main() -> None:
    """Runs the command; errors that a user can mend are shown in one line."""
    try:
        app()
    except (ValueError, FloatingPointError, gym.error.Error) as error:
        console.print(f"[bold red]Error:[/] {error}", highlight=False)
        sys.exit(1)
