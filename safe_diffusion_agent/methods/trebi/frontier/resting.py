"""What a budget buys that is too small for a behavior up to the end: part of it, and then rest.

Where costs are discounted, a remaining budget grows while nothing is spent: an agent waits, and
then follows one of the critic's behaviors. Where budgets are sums, waiting gains nothing: it
follows the behavior as long as the budget lasts, and stops.

No recorded episode need have rested, so that a critic that imitates does not know it. What it costs
and returns to do nothing is taken from the models, whose last believed step is assumed to go on.
That is a leap where episodes may end early (a robot that does nothing falls), and is made only
where none of the recorded ones did.

An improvement of ours; the paper has nothing like it.
"""

import torch
from torch import Tensor

from safe_diffusion_agent.episodes import discounted_steps
from safe_diffusion_agent.learning.dynamics import ModelRollout
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic

# Of what is left of the episode, for the behavior; the rest is waited.
SHARES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.32, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0)
SLOWEST = 0.9  # what a robot that comes to rest costs, of what it cost as many steps before
EVERY = 2  # every second of the multipliers that are planned with


def after_waiting(
    critic: FrontierCritic, idle: ModelRollout, taken: Tensor, steps_left: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns return and cost of waiting for each share and multiplier, `(B, S, P)` each.

    Args:
        critic: Its behaviors follow.
        idle: Doing nothing in the models, `(B, n)`.
        taken: Steps of it that are believed, `(B,)`, >= 1.
        steps_left: `(B,)` before the first step.
    """
    returns, costs, _, obs = idle.after(taken)
    first = taken == 1
    before = idle.after((taken - 1).clamp_min(1))
    reward, cost = (
        torch.where(first, now, now - then) / discount ** (taken - 1)
        for now, then, discount in (
            (returns, before[0], critic.discount),
            (costs, before[1], critic.cost_discount),
        )
    )
    prices, rest = critic.multipliers[::EVERY], (steps_left - taken)[:, None]
    running = torch.cat([(share * rest).floor() for share in SHARES], dim=1)
    num = len(prices)
    later = critic(
        obs.repeat_interleave(len(SHARES) * num, 0),
        running.repeat_interleave(num, 1).flatten(),
        prices.repeat(running.numel()),
    )

    def total(sofar: Tensor, rate: Tensor, follows: Tensor, discount: float) -> Tensor:
        waited = discounted_steps(rest - running, discount) * rate[:, None]
        follows = follows.view(*running.shape, num)
        after = waited[:, :, None] + (discount ** (rest - running))[:, :, None] * follows
        summed: Tensor = sofar[:, None, None] + (discount**taken)[:, None, None] * after
        return summed

    return (
        total(returns, reward, later[0], critic.discount),
        total(costs, cost, later[1], critic.cost_discount),
    )


def best_wait(returns: Tensor, costs: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the most that waiting returns within the budget, and the least that it costs, `(B,)`.

    Between two shares, return and cost are taken to be on a line. Where nothing is within the
    budget, it is the return of what costs least.

    Args:
        returns: `(B, S, P)`, for each share, from all to none, and multiplier.
        costs: `(B, S, P)`.
        budget: `(B,)`.
    """
    least, cheapest = costs.flatten(1).min(dim=1)
    more, less = costs[:, :-1], costs[:, 1:]
    part = ((budget[:, None, None] - less) / (more - less).clamp_min(1e-9)).clamp(0.0, 1.0)
    worth = returns[:, 1:] + part * (returns[:, :-1] - returns[:, 1:])
    worth = worth.masked_fill(less > budget[:, None, None], -torch.inf).flatten(1).max(dim=1).values
    alone = returns.masked_fill(costs > budget[:, None, None], -torch.inf).flatten(1)
    worth = worth.maximum(alone.max(dim=1).values)
    of_cheapest = returns.flatten(1).gather(1, cheapest[:, None])[:, 0]
    return torch.where(worth.isneginf(), of_cheapest, worth), least


def stopping_cost(idle: ModelRollout, taken: Tensor, steps_left: Tensor) -> Tensor:
    """Returns what it costs to do nothing to the end, `(B,)`, where costs are not discounted.

    The second half of the believed steps costs less than the first, and so does what follows each,
    by `SLOWEST` at least; but no more than if the last step went on to the end. One step alone says
    nothing of the next ones, which are taken to be as slow.

    Args:
        idle: Doing nothing in the models, `(B, n)`.
        taken: Steps of it that are believed, `(B,)`, >= 1.
        steps_left: `(B,)` before the first step.
    """
    first, both = idle.after((taken / 2).ceil())[1], idle.after(taken)[1]
    before = torch.where(taken > 1, idle.after((taken - 1).clamp_min(1))[1], 0.0)
    goes_on = (both - before) * (steps_left - taken)
    second = torch.where(taken > 1, both - first, both)
    ratio = torch.where(taken > 1, second / first.clamp_min(1e-9), SLOWEST).clamp(0.0, SLOWEST)
    return both + torch.minimum(second * ratio / (1.0 - ratio), goes_on)


def as_long_as_it_lasts(
    plans: tuple[Tensor, Tensor], follows: tuple[Tensor, Tensor], budget: Tensor
) -> Tensor:
    """Returns return of plans, and of behaviors that are followed until the budget is spent.

    A part of a behavior is taken to return and cost that part of the whole.

    Args:
        plans: Return and cost, `(N, 1)` each.
        follows: Return and cost of what may follow up to the episode's end, `(N, G)` each.
        budget: `(N,)`.

    Returns:
        `(N, G)`.
    """
    part = (budget[:, None] - plans[1]) / follows[1].clamp_min(1e-9)
    return plans[0] + part.clamp(0.0, 1.0) * follows[0]
