"""The most return that any policy can have within a budget, for tasks where that is known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Written by experiments/optimum_pendulum.py (dynamic programming).
FILES = {"safe/Pendulum-v0": Path(__file__).parent / "optima" / "pendulum.json"}


def best_returns(env_id: str, budgets: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
    """Returns the most return within each budget, on average over start states.

    Args:
        env_id: A task of `safe_envs`, with its default options.
        budgets: `(n,)`, in cost units; clipped to the range that was solved.

    Returns:
        `(n,)`, or None where the optimum is not known.
    """
    if env_id not in FILES:
        return None
    document = json.loads(FILES[env_id].read_text())
    costs, returns = np.array(document["hull"]).T
    best: npt.NDArray[np.float64] = np.interp(np.asarray(budgets, np.float64), costs, returns)
    return best


def best_by_ratio(
    env_id: str, ratios: Sequence[float], budgets: Sequence[float]
) -> dict[float, float]:
    """Returns ratio -> most return within its budget; empty where that is not known.

    Args:
        env_id: A task of `safe_envs`, with its default options.
        ratios: `(n,)`, shares of the maximum budget.
        budgets: `(n,)`, the same in cost units.
    """
    best = best_returns(env_id, budgets)
    return {} if best is None else dict(zip(ratios, best.tolist(), strict=True))
