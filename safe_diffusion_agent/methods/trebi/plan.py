"""What a plan is: typed outputs of the planner. n states, K candidates, horizon H."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from safe_diffusion_agent.episodes import FloatArray


@dataclass(frozen=True)
class Margin:
    """What a planner holds back of the remaining budget, in cost units.

    Where costs are discounted, the remaining budget of step t has grown by 1 / gamma_c^t, and so
    has what is held back of it for the whole episode.

    Attributes:
        of_episode: In units of the episode's first step.
        of_step: In units of the current step.
        of_rest: In units of the current step, for what is left of the episode, as if that was all
            of it: see `calibration.rest_of_episode`.
    """

    of_episode: float
    of_step: float = 0.0
    of_rest: float = 0.0

    def __add__(self, other: "Margin") -> "Margin":
        return Margin(
            self.of_episode + other.of_episode,
            self.of_step + other.of_step,
            self.of_rest + other.of_rest,
        )

    @property
    def at_start(self) -> float:
        """What it is in the first step of an episode."""
        return self.of_episode + self.of_step + self.of_rest


class Rated(NamedTuple):
    """Candidates of B states, K each."""

    trajectories: Tensor  # `(B, K, H, A + O)`, normalized
    returns: Tensor  # `(B, K)`, predicted up to the end of the episode
    costs: Tensor  # `(B, K)`, the same
    head_start: tuple[Tensor, Tensor] | None = None  # see `planner.select_candidate`


class Choice(NamedTuple):
    """Candidates of B states, K each, and the chosen ones."""

    trajectories: Tensor  # `(B, K, H, A + O)`, normalized
    returns: Tensor  # `(B, K)`, predicted up to the end of the episode
    costs: Tensor  # `(B, K)`, the same
    chosen: Tensor  # `(B,)`, index of the chosen candidate
    feasible: Tensor  # `(B,)`, whether it is predicted to keep the budget


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
        num_fitting: `(n,)`, how many candidates are predicted to keep it.
        least_cost: `(n,)`, the least that any candidate is predicted to cost.
        remaining_budget: `(n,)`, z that the plan was made for, in cost units.
        margin: `(n,)`, what the planner held back of it, in cost units.
        keep_probability: `(n,)`, estimated probability that the agent can keep the budget: that the
            least cost among its candidates is not underestimated by more than there is to spare.
        candidates: All candidates, if asked for.
    """

    actions: FloatArray
    observations: FloatArray
    predicted_return: FloatArray
    predicted_cost: FloatArray
    feasible: npt.NDArray[np.bool_]
    num_fitting: npt.NDArray[np.int64]
    least_cost: FloatArray
    remaining_budget: FloatArray
    margin: FloatArray
    keep_probability: FloatArray
    candidates: Candidates | None = None

    def explain(self, index: int = 0) -> str:
        """Returns the decision for one state in words.

        Args:
            index: Of the state, 0 <= index < n.
        """
        budget, margin = self.remaining_budget[index], self.margin[index]
        num = int(self.num_fitting[index])
        if np.isinf(budget):
            given = "There is no budget to keep."
        else:
            held_back = f", of which {margin:.3g} are held back" if margin else ""
            given = f"{budget:.3g} may still be spent{held_back}."
        if num:
            choice = f"{num} of the candidates fit; the one of the highest return is chosen."
        else:
            choice = "No candidate fits; the one that is predicted to cost least is chosen."
        return (
            f"{given} {choice} It is predicted to return {self.predicted_return[index]:.4g}, at a "
            f"cost of {self.predicted_cost[index]:.3g}. The budget can be kept with a probability "
            f"of about {self.keep_probability[index]:.0%}."
        )
