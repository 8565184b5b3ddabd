"""How much to hold back so that few episodes exceed their budget, and how sure that is.

The scores of an agent with `judge="frontier"` are of two kinds:

    how much imagined episodes overspend, in which the agent plays in its own one-step models,
    each with one member of the ensemble as the world, and with budgets spread over the range;
    how much held-out windows of the data cost beyond what the models predicted.

Where the models are too poor for whole episodes (`min_branch_steps`), they are cut, and the critic
has its word for the rest, against what it said at the start. With `judge="values"` there is only
the second kind: the cost up to the end of the episode, beyond what the cost value predicted. The
margin for a risk r is the sum of their split-conformal quantiles
(Vovk et al. 2005), each at an equal share of r.

What is guaranteed: of the imagined episodes and one more like them, at most that share exceed their
quantile; of the windows, the same on average over data sets, if their episodes are exchangeable
(windows of one episode are not independent, so that few episodes make it coarse). It is a statement
on recorded behavior and imagined episodes, marginal over states. A chosen plan is not a random
window, and the agent's episodes are not the data's: for them the share has to be measured.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Episodes, is_held_out
from safe_diffusion_agent.methods.trebi.config import TrebiConfig
from safe_diffusion_agent.methods.trebi.planner import GuidedPlanner
from safe_diffusion_agent.methods.trebi.windows import Windows


@dataclass(frozen=True)
class Calibration:
    """Scores that a margin is taken from.

    Attributes:
        underestimate: `(m,)`, cost less predicted cost of held-out windows.
        overspend: `(n,)`, cost less budget of imagined episodes, or of pieces of them (see
            `frontier_calibration.broken_promises`); None with `judge="values"`.
    """

    underestimate: Tensor
    overspend: Tensor | None = None

    def margin(self, risk: float) -> float:
        """What to hold back, in cost units; >= 0.

        Raises:
            ValueError: There are too few scores for so small a risk.
        """
        kinds = self._kinds
        return sum(max(0.0, conformal_quantile(scores, risk / len(kinds))) for scores in kinds)

    @property
    def least_risk(self) -> float:
        """The smallest risk that there are enough scores for."""
        kinds = self._kinds
        return max(len(kinds) / (len(scores) + 1) for scores in kinds)

    @property
    def _kinds(self) -> list[Tensor]:
        return [scores for scores in (self.underestimate, self.overspend) if scores is not None]

    def probability_within(self, slack: Tensor) -> Tensor:
        """Probability that a cost is underestimated by no more than `slack`, both `(N,)`.

        It is the share of the scores, and rises with the slack. That of a new score lies within
        1 / (2 (m + 1)) of it, so that it is never 0 or 1.
        """
        scores = self.underestimate.to(slack.device).sort().values
        num_within = torch.searchsorted(scores, slack, right=True)
        return (num_within + 0.5) / (len(scores) + 1)


def conformal_quantile(scores: Tensor, risk: float) -> float:
    """The smallest score that a new one exceeds with probability at most `risk`.

    Args:
        scores: `(n,)`, exchangeable with the new one.
        risk: In (0, 1).

    Returns:
        The ceil((n + 1)(1 - risk))-th smallest score.

    Raises:
        ValueError: There are too few scores for so small a risk.
    """
    rank = math.ceil((len(scores) + 1) * (1.0 - risk))
    if rank > len(scores):
        raise ValueError(
            f"A risk of {risk:g} needs at least {math.ceil(1 / risk) - 1} scores; the agent has "
            f"{len(scores)}. Choose a larger risk, or None for no margin."
        )
    return float(scores.sort().values[rank - 1])


MAX_SCORES = 10_000  # windows that the cost value is asked about


@torch.no_grad()
def underestimated_values(planner: GuidedPlanner, windows: Windows) -> Tensor:
    """Cost-to-go of windows less what the planner would expect of such candidates, `(m,)`.

    Args:
        planner: Its networks are trained.
        windows: Of episodes that they were not trained on.
    """
    rows = torch.arange(0, len(windows), max(1, len(windows) // MAX_SCORES))
    scores = []
    for chosen in rows.split(1_000):
        batch = windows.get(chosen)
        _, cost_value = planner.values(batch.remaining_steps.to(torch.float32))
        clean_step = torch.zeros(1, dtype=torch.int64, device=batch.costs.device)
        scores.append(batch.costs - cost_value(batch.trajectories, clean_step))
    return torch.cat(scores).cpu()


def check_risk(config: TrebiConfig, episodes: Episodes) -> None:
    """Finds out before a training whether its calibration will have enough scores.

    Raises:
        ValueError: It will not.
    """
    risk, frontier = config.planner.risk, config.frontier
    if risk is None:
        return
    if config.model.judge == "values":
        held_out = is_held_out(len(episodes.lengths), config.training.calibration_share)
        num_windows, needed = int(episodes.lengths[held_out].sum()), math.ceil(1.0 / risk) - 1
        if num_windows < needed:
            raise ValueError(
                f"A risk of {risk:g} needs {needed} steps of held-out data; there are "
                f"{num_windows}. Set calibration_share=0.1 or more, use more data, or risk=None."
            )
        return
    held_out = is_held_out(len(episodes.lengths), frontier.held_out_share)
    num_windows = int((episodes.lengths[held_out] // config.model.horizon).sum())
    needed = math.ceil(2.0 / risk) - 1
    if min(num_windows, frontier.calibration_episodes) < needed:
        raise ValueError(
            f"A risk of {risk:g} needs {needed} calibration_episodes and as many windows of "
            f"held-out data; there are {frontier.calibration_episodes} and {num_windows}. Use more "
            "data, a larger risk, or risk=None for no margin."
        )


@dataclass(frozen=True)
class AdaptiveRisk:
    """The risk for the next episode. It is a value: an update gives a new one.

    Attributes:
        target: Share of the episodes that may be over budget, in (0, 1).
        rate: Step size, > 0. Larger ones follow changes faster, and swing more.
        shift: What the past episodes have added to the target.

    Example:
        >>> risk = AdaptiveRisk(target=0.1, rate=0.05)
        >>> risk = risk.update(over_budget=True)
        >>> round(risk.value, 3)
        0.055
    """

    target: float
    rate: float = 0.02
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.target < 1.0 or self.rate <= 0.0:
            raise ValueError(
                "target should be in (0, 1), and rate positive. "
                f"Received {self.target} and {self.rate}."
            )

    @property
    def value(self) -> float:
        """Risk for the next episode; it may leave [0, 1]."""
        return self.target + self.shift

    def update(self, over_budget: bool) -> "AdaptiveRisk":
        """The risk for the episode after one that was, or was not, over budget."""
        return replace(self, shift=self.shift + self.rate * (self.target - over_budget))
