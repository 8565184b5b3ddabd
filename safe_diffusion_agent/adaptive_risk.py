"""Corrects the requested risk from episode to episode, by what happened (online conformal).

After each episode the risk that the margin is taken from moves towards what was aimed at (adaptive
conformal inference, Gibbs and Candes 2021):

    risk' = risk + rate * (target - 1[over budget])

It needs no assumption on the episodes, which may be chosen by an adversary. If an episode is never
over budget whose risk was 0 or less (where `TrebiAgent.margin_for` asks for the most careful
plans), then of the first T episodes at most

    target + (first risk + rate) / (rate T)

are over budget. Where even the most careful plans overspend, which no margin can prevent, there is
no guarantee, and none is for a single episode, or for those of one state or budget among others.
"""

from dataclasses import dataclass, replace


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
