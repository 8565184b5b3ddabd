"""Whether a budget can be kept from a state: by the data's behavior, and by the agent.

The behavior's safe mass is what condition (7) of Theorem 4.1 (Lin et al. 2023) asks for, from here
on: the probability P(C(tau) <= z | s) that the data's behavior spends no more than z. Trajectories
of the diffusion model without guidance stand for the behavior. What they cost is

    with `judge="values"`: the cost value, and the errors that it made on held-out data;
    with `judge="frontier"`: the sum of the costs in the one-step models, each trajectory in one
    member, with a new trajectory at the end of the last one, up to the end of the episode. The
    diffusion model sees no further back than one observation: where the data are of many policies,
    an imagined episode changes between them, and costs come out less diverse than in the data.

The agent is not the behavior. It keeps a budget from far more states, so that its own probability
is taken from the least cost that any of its candidates is predicted to have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.frontier.planner import FrontierPlanner, imagined_costs
from safe_diffusion_agent.methods.trebi.plan import FloatArray
from safe_diffusion_agent.methods.trebi.planner import GuidedPlanner


@dataclass(frozen=True)
class Feasibility:
    """How likely a budget is kept, for n states.

    Attributes:
        safe_mass: `(n,)`, estimated probability that the data's behavior keeps it.
        keep_probability: `(n,)`, estimated probability that the agent can keep it: that the least
            cost among its candidates is not underestimated by more than there is to spare. With
            `judge="values"` the predicted cost of a candidate is what the data's behavior goes on
            to spend after it, which tells little of what the agent can keep (results/trust).
            Without calibration it is 0 or 1.
    """

    safe_mass: FloatArray
    keep_probability: FloatArray


def keep_probability(
    calibration: Calibration | None, budget: FloatArray, least_cost: FloatArray
) -> FloatArray:
    """See `Feasibility`, `(n,)`.

    Args:
        calibration: Errors of the predicted costs.
        budget: z, `(n,)`.
        least_cost: The least predicted cost among a state's candidates, `(n,)`.
    """
    given = (torch.tensor(values, dtype=torch.float32) for values in (budget, least_cost))
    probability: FloatArray = _probability_within(calibration, *given).cpu().numpy()
    return probability


def safe_mass(
    planner: GuidedPlanner | FrontierPlanner,
    calibration: Calibration | None,
    obs: Tensor,
    budget: Tensor,
    steps: Tensor,
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """See `Feasibility`, `(B,)`.

    Args:
        planner: Gives trajectories, and what they cost.
        calibration: Errors of the cost value; not needed with the frontier.
        obs: `(B, O)`, in environment units.
        budget: z, `(B,)`.
        steps: `(B,)`, steps up to the time limit.
        num_samples: Trajectories per state.
        generator: Gives the random numbers.
    """
    rows = (obs.repeat_interleave(num_samples, 0), steps.repeat_interleave(num_samples, 0))
    budgets = budget.repeat_interleave(num_samples, 0)
    if isinstance(planner, FrontierPlanner):
        within = (imagined_costs(planner, *rows, generator) <= budgets).to(budgets.dtype)
    else:
        trajectories, _ = planner.draw(*rows, planner.draw_noise(len(rows[0]), generator))
        _, cost_value = planner.values(rows[1])
        clean_step = torch.zeros(1, dtype=torch.int64, device=obs.device)
        within = _probability_within(calibration, budgets, cost_value(trajectories, clean_step))
    return within.view(-1, num_samples).mean(dim=1)


def _probability_within(
    calibration: Calibration | None, budget: Tensor, predicted_cost: Tensor
) -> Tensor:
    """Probability that a cost, which is never negative, is within the budget, `(N,)`."""
    slack = budget - predicted_cost
    if calibration is None:
        return (slack >= 0.0).to(slack.dtype)
    return torch.where(budget < 0.0, 0.0, calibration.probability_within(slack))
