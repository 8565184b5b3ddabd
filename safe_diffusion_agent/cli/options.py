"""Options that several commands share, and how their values are read."""

import importlib
import json
from typing import Annotated, Any

import typer

from safe_diffusion_agent.errors import UnknownNameError

Seed = Annotated[int, typer.Option(help="Fixes the whole command, on one machine.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ... or auto.")]
Method = Annotated[str, typer.Option(help="trebi, caps, cpq, ...; see `trebi list`.")]
Preset = Annotated[str, typer.Option(help="paper, quick, ...; see `trebi list`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting to change, as key=value; can be repeated."),
]
CostKey = Annotated[str, typer.Option(help="Where the dataset has its costs.")]
CostFn = Annotated[
    str | None,
    typer.Option(help="Compute the costs: a function of safe_envs.costs, or module:function."),
]
Ratios = Annotated[str, typer.Option(help="Budgets as shares of the maximum, with commas between.")]
NumEpisodes = Annotated[int, typer.Option("--episodes", help="Episodes per budget.")]


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
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


def parse_function(name: str | None) -> Any:
    """`"speed"` is `safe_envs.costs.speed_cost`; `"module:function"` anything else."""
    if name is None:
        return None
    module_name, _, function = name.rpartition(":")
    module = importlib.import_module(module_name or "safe_envs.costs")
    known = [n.removesuffix("_cost") for n in vars(module) if n.endswith("_cost")]
    if not module_name and name not in known:
        raise UnknownNameError("cost function", name, known)
    return getattr(module, function if module_name else f"{name}_cost")


def parse_ratios(text: str) -> tuple[float, ...]:
    """Numbers with commas between."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--ratios should be numbers like 0.2,0.6. Received {text!r}.") from error


def parse_seeds(text: str) -> list[int]:
    """Whole numbers with commas between."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--seeds should be numbers like 0,1,2. Received {text!r}.") from error
