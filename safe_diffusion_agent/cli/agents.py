"""Commands on agents: `trebi train`, `evaluate`, `run`, `inspect`, and `list`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from safe_diffusion_agent.cli.display import (
    console,
    progress_bar,
    progress_bars,
    show_evaluation,
)
from safe_diffusion_agent.cli.options import (
    CostFn,
    CostKey,
    Device,
    Jobs,
    Method,
    NumEpisodes,
    Preset,
    Ratios,
    Seed,
    Settings,
    parse_function,
    parse_ratios,
    parse_seeds,
    parse_settings,
    refuse_given,
)

app = typer.Typer()


@app.command(epilog="Example: trebi train safe-envs/pendulum/sac-replay-v0 runs/pendulum")
def train(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(help="Minari id of a dataset; a task, for a method that learns in one."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    method: Method = "trebi",
    preset: Preset = "quick",
    seed: Seed = 0,
    seeds: Annotated[
        str | None, typer.Option(help="Several, like 0,1,2: agents OUT/seed-0, ...")
    ] = None,
    jobs: Jobs = 1,
    device: Device = "auto",
    cost_key: CostKey = "infos/cost",
    cost_fn: CostFn = None,
    settings: Settings = None,
) -> None:
    """Train an agent, or several with different seeds."""
    from safe_diffusion_agent.experiments.inspection import held_back_too_much
    from safe_diffusion_agent.experiments.jobs import run_all, train_job
    from safe_diffusion_agent.methods.table import load_agent

    folders = {seed: out}
    if seeds is not None:
        refuse_given(context, ["seed"], "with --seeds")
        folders = {one: out / f"seed-{one}" for one in parse_seeds(seeds)}
    trainings = [
        train_job(
            source,
            folder,
            method=method,
            preset=preset,
            seed=one,
            device=device,
            cost_key=cost_key,
            cost_fn=parse_function(cost_fn),
            settings=parse_settings(settings),
        )
        for one, folder in folders.items()
    ]
    with progress_bars() as progress:
        run_all(trainings, workers=jobs, progress=progress)
    for folder in folders.values():
        console.print(f"Agent: {folder}")
        if warning := held_back_too_much(load_agent(folder, device=device)):
            console.print(f"[yellow]{warning}[/]")


@app.command(epilog="Example: trebi evaluate pendulum --episodes 20 --out runs/evaluation")
def evaluate(
    agents: Annotated[
        list[str], typer.Argument(help="Folders of runs, or names of pretrained agents.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; of several agents, OUT/NAME.")
    ] = None,
    env_id: Annotated[str | None, typer.Option("--env", help="Task; default: the agent's.")] = None,
    ratios: Ratios = "0.2,0.4,0.6,0.8,1.0",
    episodes: NumEpisodes = 20,
    seed: Seed = 0,
    max_budget: Annotated[
        float | None, typer.Option(help="In cost units; default: that of the agent's dataset.")
    ] = None,
    control_interval: Annotated[int, typer.Option(help="Steps between two plans.")] = 1,
    jobs: Jobs = 1,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Evaluate agents under several budgets: table, results.json, episodes.csv, picture.

    Run it again after an interruption, and it continues.
    """
    from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
    from safe_diffusion_agent.experiments.jobs import evaluate_job, run_all
    from safe_diffusion_agent.storage import read_json

    changed = parse_settings(settings)
    config = EvaluationConfig(
        ratios=parse_ratios(ratios),
        num_episodes=episodes,
        seed=seed,
        max_budget=max_budget,
        control_interval=control_interval,
    )
    folders = _results_folders(agents, out)
    if changed.get("execution") == "compiled":
        console.print("The first plan is compiled: tens of seconds, unless it was before.")
    evaluations = [
        evaluate_job(agent, folder, config, env_id=env_id, settings=changed, device=device)
        for agent, folder in folders.items()
    ]
    with progress_bars() as progress:
        run_all(evaluations, workers=jobs, progress=progress)
    for folder in folders.values():
        show_evaluation(read_json(folder / "results.json"), folder)


def _results_folders(agents: Sequence[str], out: Path | None) -> dict[str, Path]:
    """Returns the folder of each agent's results.

    Raises:
        ValueError: Two agents have the same one.
    """
    folders = {agent: _results_folder(agent, out, alone=len(agents) == 1) for agent in agents}
    agent_of: dict[Path, str] = {}
    for agent, folder in folders.items():
        other = agent_of.setdefault(folder.resolve(), agent)
        if other != agent:
            raise ValueError(
                f"{other} and {agent} would share the folder {folder}: evaluate them one by one, "
                "each with its own --out."
            )
    return folders


def _results_folder(agent: str, out: Path | None, *, alone: bool) -> Path:
    if out is None:
        return (Path(agent) if Path(agent).is_dir() else Path("runs") / agent) / "evaluation"
    return out if alone else out / agent.strip("/").replace("/", "-")


@app.command(epilog="Example: trebi run safe/Pendulum-v0 runs/pendulum --preset frontier")
def run(
    env_id: Annotated[str, typer.Argument(help="A task of `trebi list`.")],
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    method: Method = "trebi",
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
    from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
    from safe_diffusion_agent.experiments.stages import run as run_all

    document = run_all(
        env_id,
        out,
        method=method,
        preset=preset,
        seed=seed,
        num_steps=steps,
        dataset_id=dataset_id,
        device=device,
        settings=parse_settings(settings),
        evaluation=EvaluationConfig(ratios=parse_ratios(ratios), num_episodes=episodes, seed=seed),
        progress_of=progress_bar,
    )
    show_evaluation(document, out / "evaluation")


@app.command(epilog="Example: trebi inspect pendulum --budget 20 --step 60")
def inspect(
    agent: Annotated[str, typer.Argument(help="Folder of a run, or name of a pretrained agent.")],
    out: Annotated[Path, typer.Option(help="Picture of the decision.")] = Path("decision.png"),
    env_id: Annotated[str | None, typer.Option("--env", help="Task; default: the agent's.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Of the episode; default: half the maximum.")
    ] = None,
    step: Annotated[int, typer.Option(help="Steps before the decision.")] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Show what a TREBI agent is, how far it trusts its models, and one decision of it."""
    from safe_diffusion_agent.experiments.inspection import (
        check_picture,
        decision_at,
        draw_decision,
        facts,
    )
    from safe_diffusion_agent.methods.trebi.agent import TrebiAgent

    check_picture(out)
    loaded = TrebiAgent.load(agent, device=device, seed=seed, **parse_settings(settings))
    table = Table(box=None, show_header=False)
    for name, text in facts(loaded).items():
        table.add_row(f"[bold]{name}[/]", text)
    console.print(table)
    chosen = 0.5 * loaded.task.max_budget if budget is None else budget
    decision = decision_at(loaded, budget=chosen, step=step, env_id=env_id, seed=seed)
    console.print(decision.plan.explain())
    draw_decision(decision, out)
    console.print(f"written: {out}")


@app.command(name="list", epilog="Example: trebi list")
def list_all() -> None:
    """List tasks, methods, pretrained agents and local datasets."""
    import minari

    from safe_diffusion_agent.methods.table import METHODS
    from safe_diffusion_agent.storage import pretrained_names
    from safe_envs import TASKS

    widest = max(map(len, TASKS))
    table = Table(Column("task", min_width=widest), "cost of a step", "steps", "cost discount",
                  "max. budget", box=None)  # fmt: skip
    for spec in TASKS.values():
        limits = (spec.max_episode_steps, spec.cost_discount, spec.max_budget)
        table.add_row(spec.id, spec.cost, *(f"{value:g}" for value in limits))
    console.print(table)
    methods = Table("method", "", "presets", box=None)
    for name, method in METHODS.items():
        methods.add_row(name, method.summary, ", ".join(method.presets))
    console.print()
    console.print(methods)
    console.print()
    console.print("[bold]pretrained[/] " + (", ".join(pretrained_names()) or "none"))
    console.print("[bold]datasets[/]   " + (", ".join(minari.list_local_datasets()) or "none"))
