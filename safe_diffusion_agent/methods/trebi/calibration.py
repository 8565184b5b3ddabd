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

What the critic is wrong by grows with what is left of the episode: it is counted, and held back, in
proportion to what a constant cost would sum up to until its end (`rest_of_episode`).

Where costs are discounted, what whole episodes overspend is in units of their first step. To hold
it back from a remaining budget of step t, which has grown by 1 / gamma_c^t, takes 1 / gamma_c^t as
much. All other scores are in units of the step that they start from, which may be any.

What is guaranteed: of the imagined episodes and one more like them, at most that share exceed their
quantile; of the windows, the same on average over data sets, if their episodes are exchangeable
(windows of one episode are not independent, so that few episodes make it coarse). It is a statement
on recorded behavior and imagined episodes, marginal over states. A chosen plan is not a random
window, and the agent's episodes are not the data's: for them the share has to be measured.

`AdaptiveRisk` corrects the requested risk from episode to episode, by what happened.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import Task, discounted_steps
from safe_diffusion_agent.methods.trebi.plan import Margin

LEAST_REST = 0.1


@dataclass(frozen=True)
class Calibration:
    """Scores that a margin is taken from.

    Attributes:
        underestimate: `(m,)`, cost less predicted cost of held-out windows.
        overspend: `(n,)`, cost less budget of imagined episodes.
        broken_promises: `(n,)`, cost less promised cost of imagined pieces of episodes, with the
            critic's word for the rest, as if a whole episode was left; in place of `overspend`
            where the models are poor.
    """

    underestimate: Tensor
    overspend: Tensor | None = None
    broken_promises: Tensor | None = None

    def margin(self, risk: float) -> Margin:
        """Returns what to hold back for a risk.

        Raises:
            ValueError: There are too few scores for so small a risk.
        """
        each = risk / len(self._kinds)

        def held_back(scores: Tensor | None) -> float:
            return 0.0 if scores is None else max(0.0, conformal_quantile(scores, each))

        return Margin(
            of_episode=held_back(self.overspend),
            of_step=held_back(self.underestimate),
            of_rest=held_back(self.broken_promises),
        )

    @property
    def least_risk(self) -> float:
        """The smallest risk that there are enough scores for."""
        kinds = self._kinds
        return max(len(kinds) / (len(scores) + 1) for scores in kinds)

    @property
    def _kinds(self) -> list[Tensor]:
        kinds = (self.underestimate, self.broken_promises, self.overspend)
        return [scores for scores in kinds if scores is not None]

    def probability_within(self, slack: Tensor) -> Tensor:
        """Returns the probability that a cost is underestimated by no more than `slack`, `(N,)`.

        It is the share of the scores, and rises with the slack. That of a new score lies within
        1 / (2 (m + 1)) of it, so that it is never 0 or 1.
        """
        scores = self.underestimate.to(slack.device).sort().values
        num_within = torch.searchsorted(scores, slack, right=True)
        return (num_within + 0.5) / (len(scores) + 1)


def rest_of_episode(steps: Tensor, task: Task, cost_discount: float) -> Tensor:
    """Returns what a constant cost sums up to in so many steps, as a share of a whole episode.

    At least `LEAST_REST` of an episode's steps count: what is wrong by little does not vanish.

    Args:
        steps: `(n,)`, up to the time limit.
        task: Has the limit; without one, the share is 1.
        cost_discount: gamma_c.
    """
    limit = task.max_episode_steps
    if limit is None:
        return torch.ones_like(steps)
    sums = discounted_steps(steps.clamp_min(LEAST_REST * limit), cost_discount)
    shares: Tensor = sums / discounted_steps(limit, cost_discount)
    return shares


def conformal_quantile(scores: Tensor, risk: float) -> float:
    """Returns the smallest score that a new one exceeds with probability at most `risk`.

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


@dataclass(frozen=True)
class AdaptiveRisk:
    """The risk for the next episode, corrected after each one (Gibbs and Candes 2021).

    After each episode the risk that the margin is taken from moves towards what was aimed at:

        risk' = risk + rate * (target - 1[over budget])

    It needs no assumption on the episodes, which may be chosen by an adversary. If an episode is
    never over budget whose risk was 0 or less (where `TrebiAgent.margin_for` asks for the most
    careful plans), then of the first T episodes at most

        target + (first risk + rate) / (rate T)

    are over budget. Where even the most careful plans overspend, which no margin can prevent, there
    is no guarantee, and none is for a single episode, or for those of one state or budget among
    others. It is a value: an update gives a new one.

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
        """Returns the risk for the episode after one that was, or was not, over budget."""
        return replace(self, shift=self.shift + self.rate * (self.target - over_budget))
