"""The `trebi` command. Every command calls the library function of its name, and shows it."""

import os
import sys
from collections.abc import Sequence

import gymnasium as gym
import typer

from safe_diffusion_agent.cli import agents, datasets, reproduction
from safe_diffusion_agent.cli.display import show_error

app = typer.Typer(
    help="Safe offline reinforcement learning with a budget that is given at run time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(datasets.app)
app.add_typer(agents.app)
app.add_typer(reproduction.app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; errors that a user can mend are shown in one line.

    Modules of the current folder are found, as with `python -m`: environments and cost functions
    are named as `module:name`.
    """
    sys.path.append(os.getcwd())
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError, gym.error.Error) as error:
        show_error(error)
        sys.exit(1)
