"""Plain Diffuser (Janner et al. 2022): TREBI's planner without a constraint, to compare with.

Its networks are those of TREBI with the same settings; whatever the budget, it plans as if there
were none.
"""

import math
from typing import Any, ClassVar

import numpy.typing as npt

from safe_diffusion_agent.agent import FloatArray
from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.trebi.agent import TrebiAgent
from safe_diffusion_agent.trebi.config import TrebiConfig
from safe_diffusion_agent.trebi.fit import fit as fit_trebi


class DiffuserAgent(TrebiAgent):
    """TREBI that is always given an infinite budget."""

    method: ClassVar[str] = "diffuser"

    @classmethod
    def of(cls, agent: TrebiAgent) -> "DiffuserAgent":
        """The same networks, unconstrained."""
        parts = (agent.networks, agent.normalizer, agent.config, agent.task, agent.calibration)
        return cls(*parts, about=agent.about, device=agent.device, seed=agent.seed)

    def act(
        self,
        obs: npt.ArrayLike,
        remaining_budget: npt.ArrayLike,
        remaining_steps: npt.ArrayLike | None = None,
        **options: Any,
    ) -> FloatArray:
        """See `Agent.act`; the budget is checked, and then ignored."""
        self._check_inputs(obs, remaining_budget, remaining_steps)
        return super().act(obs, math.inf, remaining_steps, **options)


def fit(
    episodes: Episodes, config: TrebiConfig, **options: Any
) -> tuple[DiffuserAgent, list[dict[str, float]]]:
    """Trains a plain Diffuser; see `trebi.fit.fit`."""
    agent, history = fit_trebi(episodes, config, **options)
    return DiffuserAgent.of(agent), history
