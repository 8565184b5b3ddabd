"""What a plan is: typed outputs of the planner. n states, K candidates, horizon H."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Every sampled trajectory, K per state.

    Attributes:
        actions: `(n, K, H, A)`, in environment units.
        observations: `(n, K, H, O)`, imagined; the first is the given one.
        predicted_return: `(n, K)`, up to the end of the episode.
        predicted_cost: `(n, K)`, the same, in cost units.
        chosen: `(n,)`, index of the candidate that is the plan.
    """

    actions: FloatArray
    observations: FloatArray
    predicted_return: FloatArray
    predicted_cost: FloatArray
    chosen: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """One planned trajectory per state.

    Attributes:
        actions: `(n, H, A)`, in environment units; `actions[:, 0]` is what `act` returns.
        observations: `(n, H, O)`, imagined; the first is the given one.
        predicted_return: `(n,)`, up to the end of the episode.
        predicted_cost: `(n,)`, the same, in cost units. With `judge="frontier"` it is the least
            that can be spent from here on if the plan is followed, and the predicted return the
            most that the remaining budget can buy.
        feasible: `(n,)`, whether the plan is predicted to keep the remaining budget (less the
            planner's margin). If not, no candidate was, and this one is predicted to cost least.
        candidates: All candidates, if asked for.
    """

    actions: FloatArray
    observations: FloatArray
    predicted_return: FloatArray
    predicted_cost: FloatArray
    feasible: npt.NDArray[np.bool_]
    candidates: Candidates | None = None
