"""Options that several commands share, and how their values are read."""

import importlib
import inspect
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from safe_diffusion_agent.errors import UnknownNameError
from safe_envs.costs import COST_FUNCTIONS

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
Jobs = Annotated[int, typer.Option(help="Processes side by side, where there are several jobs.")]
NumEpisodes = Annotated[int, typer.Option("--episodes", help="Episodes per budget.")]


def refuse_given(context: typer.Context, names: Iterable[str], where: str) -> None:
    """Refuses options that would have no effect.

    Args:
        context: Of the command.
        names: Parameters of the command.
        where: Why they have none, like "with --all".

    Raises:
        ValueError: One of them is given on the command line.
    """
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{options[name]} has no effect {where}: leave it out.")


WORDS = {"true": True, "false": False, "none": None, "null": None}  # as Python and JSON have them


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """Returns `key=value` pairs as a mapping; values are `WORDS`, JSON, or else strings."""
    parsed: dict[str, Any] = {}
    for setting in settings or []:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--set should be key=value. Received {setting!r}.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = WORDS.get(text.lower(), text)
        parsed[key] = tuple(value) if isinstance(value, list) else value
    return parsed


def parse_function(name: str | None) -> Any:
    """Returns a cost function: `"speed"` is one of `safe_envs`, `"module:function"` any other.

    Raises:
        UnknownNameError: `safe_envs` has no such function.
        ValueError: There is no such module or function, or it takes other arguments.
    """
    if name is None:
        return None
    module_name, _, attribute = name.rpartition(":")
    if not module_name:
        if name not in COST_FUNCTIONS:
            raise UnknownNameError("cost function", name, COST_FUNCTIONS)
        return COST_FUNCTIONS[name]
    try:
        function = getattr(importlib.import_module(module_name), attribute)
        inspect.signature(function).bind(*["observation", "action", "next_observation", "info"])
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            "--cost-fn should be a function of (observation, action, next_observation, info). "
            f"Received {name!r}: {error}."
        ) from error
    return function


POLICY_EXAMPLE = "sac.zip,share=0.5,noise=0.1,deterministic"
POLICY_OPTIONS = ("share", "noise", "budget", "deterministic")


def parse_policy(text: str) -> dict[str, Any]:
    """Returns `"sac.zip,share=0.5,deterministic"` as the arguments of a `Behavior`.

    Raises:
        UnknownNameError: There is no such option of a policy.
        ValueError: A value is no number.
    """
    policy, *options = text.split(",")
    parsed: dict[str, Any] = {"policy": policy}
    for option in options:
        name, _, value = option.partition("=")
        if name not in POLICY_OPTIONS:
            raise UnknownNameError("option of a policy", name, POLICY_OPTIONS)
        try:
            parsed[name] = True if option == "deterministic" else float(value)
        except ValueError as error:
            raise ValueError(
                f"--policy should be like {POLICY_EXAMPLE}. Received {text!r}."
            ) from error
    return parsed


def parse_ratios(text: str) -> tuple[float, ...]:
    """Returns numbers with commas between as a tuple."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--ratios should be numbers like 0.2,0.6. Received {text!r}.") from error


def parse_seeds(text: str) -> list[int]:
    """Returns whole numbers with commas between as a list."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--seeds should be numbers like 0,1,2. Received {text!r}.") from error
