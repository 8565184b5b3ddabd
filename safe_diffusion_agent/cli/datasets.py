"""Commands on datasets: `trebi collect`, `describe`, `import`, `max-budget`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_diffusion_agent.cli.display import (
    console,
    progress_bar,
    progress_bars,
    show_collection,
    show_policies,
)
from safe_diffusion_agent.cli.options import (
    CostFn,
    CostKey,
    Jobs,
    Seed,
    parse_function,
    parse_policy,
    refuse_given,
)

app = typer.Typer()


@app.command(
    epilog="Example: trebi collect safe/Pendulum-v0 --steps 20000 --seed 0\n\n"
    "Example: trebi collect safe/HalfCheetah-v0 --steps 60000 "
    "--policy sac.zip,share=0.7,noise=0.1 --policy random,share=0.3"
)
def collect(
    context: typer.Context,
    env_id: Annotated[str | None, typer.Argument(help="A task of `trebi list`.")] = None,
    quality: Annotated[
        str | None,
        typer.Option(help="replay (unless you say another), medium, medium-replay, expert, ..."),
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="Let this act, and train no SAC; can be repeated. A zip of Stable-Baselines3, the "
            "folder or name of an agent, random, or module:function; then, with commas between: "
            "share=, noise=, budget=, deterministic.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the dataset.")] = 20_000,
    train_steps: Annotated[
        int | None, typer.Option(help="Steps of SAC, if its policy is rolled out.")
    ] = None,
    expert: Annotated[
        str | None,
        typer.Option(
            help="Zip of Stable-Baselines3 whose policy is the expert: SAC ends at a third of it."
        ),
    ] = None,
    seed: Seed = 0,
    dataset_id: Annotated[str | None, typer.Option(help="Minari id of the dataset.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what an interrupted collection needs.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another dataset of that id.")] = False,
    all_datasets: Annotated[bool, typer.Option("--all", help="All datasets of the paper.")] = False,
    experts: Annotated[
        bool,
        typer.Option(
            "--experts", help="With --all: those of the robots whose experts are in logs/sac."
        ),
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option(help="With --all: most steps of each dataset, and of its SAC.")
    ] = None,
    num_envs: Annotated[
        int | None, typer.Option(help="With --policy: environments that are acted in at once.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be collected, and collect nothing.")
    ] = False,
    jobs: Jobs = 1,
) -> None:
    """Store what an unconstrained SAC saw, or what policies do that you bring, as a dataset."""
    from safe_diffusion_agent.data.manifest import BY_EXPERTS, MANIFEST, capped
    from safe_diffusion_agent.data.qualities import CollectConfig
    from safe_diffusion_agent.experiments.jobs import collect_job, run_all

    if all_datasets:
        of_one = ("quality", "steps", "train_steps", "expert", "dataset_id", "out")
        refuse_given(context, of_one, "with --all")
    else:
        refuse_given(context, ["max_steps", "experts"], "without --all")
    if all_datasets == (env_id is not None):
        raise ValueError("Name one task, or give --all.")
    if policies:
        if env_id is None or quality or train_steps or expert or max_steps:
            raise ValueError("--policy trains no SAC: leave out what is about it.")
        options = {"num_steps": steps, "seed": seed, "dataset_id": dataset_id, "state_dir": out}
        if num_envs is not None:
            options["num_envs"] = num_envs
        _collect_with(policies, env_id, options, overwrite=overwrite, dry_run=dry_run)
        return
    if num_envs is not None:
        raise ValueError("--num-envs needs a --policy: SAC acts in one environment.")
    if env_id is None:
        chosen = BY_EXPERTS if experts else MANIFEST
        configs = [replace(config, seed=seed) for config in capped(chosen, max_steps)]
    else:
        one = CollectConfig(
            env_id=env_id,
            quality=quality or "replay",
            num_steps=steps,
            train_steps=train_steps,
            expert=expert,
            seed=seed,
        )
        configs = [one]
    ids = [dataset_id or c.dataset_id for c in configs]
    collections = [
        collect_job(config, name, state_dir=out, overwrite=overwrite)
        for config, name in zip(configs, ids, strict=True)
    ]
    if dry_run:
        for job, config in zip(collections, configs, strict=True):
            show_collection(job.name, asdict(config), done=job.is_done())
        return
    with progress_bars() as progress:
        run_all(collections, workers=jobs, progress=progress)
    console.print("Datasets: " + ", ".join(ids))


def _collect_with(
    texts: list[str], env_id: str, options: dict[str, Any], *, overwrite: bool, dry_run: bool
) -> None:
    from safe_diffusion_agent.data.writing import is_made, stored_metadata
    from safe_diffusion_agent.experiments.collecting import plan_collection
    from safe_diffusion_agent.experiments.policies import Behavior

    behaviors = [Behavior(**parse_policy(text)) for text in texts]
    collection = plan_collection(behaviors, env_id, **options)
    name, config = collection.dataset_id, collection.config
    done = is_made(name, config, overwrite=overwrite)
    if dry_run:
        show_collection(name, config, done=done)
        return
    if not done:
        with progress_bar("collect") as progress:
            collection.run(progress)
    show_policies(stored_metadata(name)["policies"])
    console.print(f"Dataset: {name}")


@app.command(epilog="Example: trebi describe safe-envs/pendulum/sac-replay-v0 --out runs/card")
def describe(
    context: typer.Context,
    dataset_id: Annotated[
        str | None, typer.Argument(help="Minari id of a dataset with costs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the card; else the dataset's own.")
    ] = None,
    all_datasets: Annotated[
        bool, typer.Option("--all", help="Those of the paper; into results/datasets.")
    ] = False,
    cost_key: CostKey = "infos/cost",
    cost_fn: CostFn = None,
) -> None:
    """Write the card of a dataset: what is in it, and which budgets it can teach."""
    from safe_diffusion_agent.experiments.cards import describe as describe_dataset
    from safe_diffusion_agent.experiments.cards import describe_all

    if all_datasets:
        refuse_given(context, ("cost_key", "cost_fn"), "with --all")
    if all_datasets == (dataset_id is not None):
        raise ValueError("Name one dataset, or give --all.")
    if dataset_id is None:
        console.print(f"written: {describe_all(out or Path('results/datasets'))}")
        return
    function = parse_function(cost_fn)
    path = describe_dataset(dataset_id, out, cost_key=cost_key, cost_fn=function)
    console.print(f"Card: {path}")


@app.command(
    name="import",
    epilog="Example: trebi import hopper_medium-v2.hdf5 d4rl/hopper-medium-v2 "
    "--cost-fn speed --step-seconds 0.008 --cost-discount 0.99",
)
def import_file(
    path: Annotated[Path, typer.Argument(help="HDF5 file of DSRL or D4RL.")],
    dataset_id: Annotated[str, typer.Argument(help="Minari id to write.")],
    env_id: Annotated[str | None, typer.Option("--env", help="Its environment, if any.")] = None,
    cost_key: Annotated[str, typer.Option(help="Name of the costs in the file.")] = "costs",
    cost_fn: CostFn = None,
    cost_discount: Annotated[float, typer.Option(help="gamma_c to store with it.")] = 1.0,
    step_seconds: Annotated[
        float | None, typer.Option(help="Duration of a step, to compute speeds from positions.")
    ] = None,
) -> None:
    """Import a DSRL or D4RL file from disk as a Minari dataset with costs."""
    from safe_diffusion_agent.data.hdf5 import import_hdf5

    made = import_hdf5(
        path,
        dataset_id,
        env_id=env_id,
        cost_key=cost_key,
        cost_fn=parse_function(cost_fn),
        cost_discount=cost_discount,
        step_seconds=step_seconds,
    )
    console.print(f"Dataset: {made}")


@app.command(epilog="Example: trebi max-budget safe-envs/hopper/medium-v0 --agent runs/hopper")
def max_budget(
    dataset_id: Annotated[str, typer.Argument(help="Minari id of a dataset with costs.")],
    agent: Annotated[
        str | None, typer.Option(help="Measure its unconstrained planning, not the data.")
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of the agent.")] = 60,
    seed: Seed = 0,
    cost_key: CostKey = "infos/cost",
    cost_fn: CostFn = None,
) -> None:
    """Compute the maximum budget of a dataset by the paper's rules, and store it with it."""
    from safe_diffusion_agent.experiments.cards import measure_max_budget
    from safe_diffusion_agent.methods.table import load_agent

    loaded = None if agent is None else load_agent(agent)
    with progress_bar("measure") as progress:
        measured = measure_max_budget(
            dataset_id,
            loaded,
            num_episodes=episodes,
            seed=seed,
            cost_key=cost_key,
            cost_fn=parse_function(cost_fn),
            progress=progress,
        )
    value, source = measured["max_budget"], measured["max_budget_source"]
    console.print(f"Maximum budget of {dataset_id}: {value:.4g} ({source}). Stored with it.")
    if measured["paper_max_budget"] is not None:
        console.print(
            f"The paper's (Table 2): {measured['paper_max_budget']:g}. It is for other data: of "
            "another training of SAC, other sizes or, for MuJoCo tasks, D4RL's."
        )
