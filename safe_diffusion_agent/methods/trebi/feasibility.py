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

from safe_diffusion_agent.episodes import FloatArray, Task
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.planner import Judge


@dataclass(frozen=True)
class Feasibility:
    """Estimates how likely a budget is kept, for n states.

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
    calibration: Calibration | None, task: Task, budget: Tensor, least_cost: Tensor
) -> FloatArray:
    """Returns the estimated probability that an agent can keep a budget, `(n,)`.

    Args:
        calibration: Errors of the predicted costs. None: there are no errors.
        task: Says whether a cost may be negative.
        budget: z, `(n,)`.
        least_cost: The least predicted cost among a state's candidates, `(n,)`.
    """
    probability = _within(calibration, budget, least_cost)
    if not task.costs_may_be_negative:
        probability = torch.where(budget < 0.0, 0.0, probability)
    result: FloatArray = probability.cpu().numpy()
    return result


def safe_mass(
    judge: Judge,
    calibration: Calibration | None,
    num_samples: int,
    obs: Tensor,
    budget: Tensor,
    steps: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Returns the estimated probability that the data's behavior keeps a budget, `(B,)`.

    Args:
        judge: Says what the behavior goes on to spend.
        calibration: Errors of its predictions, if it predicts. None: there are no errors.
        num_samples: Trajectories per state.
        obs: `(B, O)`, in environment units.
        budget: z, `(B,)`.
        steps: `(B,)`, steps up to the time limit.
        generator: Gives the random numbers.
    """
    obs, budget, steps = (x.repeat_interleave(num_samples, 0) for x in (obs, budget, steps))
    costs = judge.costs_of_behavior(obs, steps, generator)
    within = _within(calibration if judge.predicts_costs else None, budget, costs)
    if judge.predicts_costs and not judge.sampler.task.costs_may_be_negative:
        within = torch.where(budget < 0.0, 0.0, within)
    return within.view(-1, num_samples).mean(dim=1)


def _within(calibration: Calibration | None, budget: Tensor, predicted_cost: Tensor) -> Tensor:
    """Returns the probability that a cost is within the budget, `(N,)`."""
    slack = budget - predicted_cost
    if calibration is None:
        return (slack >= 0.0).to(slack.dtype)
    return calibration.probability_within(slack)
