"""How often budgets are kept: under risks, in other worlds, and while the budgets move.

Agents are loaded without a margin of their own, and told a budget less the margin of a risk.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from safe_diffusion_agent.episodes import discounted_sum
from safe_diffusion_agent.evaluation.moving_budgets import (
    lost_to_cuts,
    one_change,
    random_walk,
    top_ups,
    total_budget,
)
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.experiments.shifts import (
    NO_SHIFT,
    SHIFTS,
    START_SEED,
    Array,
    Shift,
    grid,
    play,
    shifts_of,
)
from safe_diffusion_agent.methods.trebi.calibration import AdaptiveRisk

RISKS = (None, 0.02, 0.05, 0.1, 0.2, 0.4)
RATIOS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
FEW_RATIOS = (0.1, 0.3, 0.6)
NOISY = ("none", "noise 0.15")  # worlds of the guard and of the adaptive risk
RISK = 0.05  # where one is enough
CUT_TO = 8.0 / 60.0  # share of the maximum budget


def outcome(returns: Array, costs: Array, budgets: Array) -> dict[str, Any]:
    """Returns what became of n episodes; the share over budget with its 95 % Wilson interval."""
    num, total = int((costs > budgets).sum()), len(costs)
    return {
        "mean_return": float(returns.mean()),
        "mean_cost": float(costs.mean()),
        "largest_overrun": float((costs - budgets).max()),
        "num_over": num,
        "num_episodes": total,
        "wilson_95": wilson_interval(num, total),
    }


def risk_curve(
    agent: Any, num: int, shift: Shift = NO_SHIFT, ratios: Sequence[float] = RATIOS
) -> list[dict[str, Any]]:
    """Returns the share of episodes over budget and the return, for each risk and budget.

    All risks and budgets have the same start states. A risk that the agent has too few scores for
    is left out.

    Args:
        agent: The agent.
        num: Episodes per risk and budget.
        shift: The world.
        ratios: Budgets as shares of the maximum.
    """
    margins = {risk: 0.0 if risk is None else agent.margin_for(risk) for risk in RISKS}
    risks = [risk for risk in RISKS if np.isfinite(margins[risk])]
    which, ratio, episode = grid(range(len(risks)), ratios, range(num))
    of_each = np.array([np.nan if risk is None else risk for risk in risks])[which]
    budgets = ratio * agent.task.max_budget
    returns, costs, _ = play(agent, budgets, of_each, episode, shift=shift)
    return [
        {"risk": risk, "margin": margins[risk], "ratio": r}
        | outcome(returns[rows], costs[rows], budgets[rows])
        for k, risk in enumerate(risks)
        for r in ratios
        for rows in [(which == k) & (ratio == r)]
    ]


def shifted_risk_curves(agent: Any, num: int) -> list[dict[str, Any]]:
    """Returns the risk curve of every other world, half the episodes each."""
    return [
        {
            "shift": asdict(shift),
            "rows": risk_curve(agent, max(1, num // 2), shift, FEW_RATIOS),
        }
        for shift in shifts_of(agent.task.env_id)
        if shift != NO_SHIFT
    ]


def schedules_of(agent: Any, num: int) -> dict[str, tuple[Array, Array]]:
    """Returns budgets `(n,)` and grants `(T, n)`; no total is below a tenth of the maximum."""
    rng = np.random.default_rng(START_SEED)
    limit, most, discount = agent.task.max_episode_steps, agent.task.max_budget, agent.cost_discount
    at = rng.integers(limit // 10, limit // 2, num)
    worth = discount ** -at.astype(float)  # of one unit of the start, at that step
    full = np.ones(num)
    allowance = top_ups(limit, limit // 8, full)
    allowance *= 0.4 * most / np.maximum(total_budget(0.0 * full, allowance, discount), 1e-9)
    walk = random_walk(limit, limit // 10, 0.1 * most * full, rng)
    shortage = 0.1 * most - total_budget(0.5 * most * full, walk, discount)
    walk[limit // 10] += np.maximum(shortage, 0.0) / discount ** (limit // 10)
    return {
        "cut, 0.8 to 0.2": (0.8 * most * full, one_change(limit, at, -0.6 * most * worth)),
        "raise, 0.2 to 0.8": (0.2 * most * full, one_change(limit, at, 0.6 * most * worth)),
        "daily top-ups, 0.1 to 0.5": (0.1 * most * full, allowance),
        "random walk from 0.5": (0.5 * most * full, walk),
    }


def moving_budgets(agent: Any, num: int) -> list[dict[str, Any]]:
    """Compares each schedule with the same agent that is given its total from the start."""
    schedules, discount = schedules_of(agent, num), agent.cost_discount
    starts, grants = (np.concatenate(parts, axis=-1) for parts in zip(*schedules.values()))
    total = total_budget(starts, grants, discount)
    both = np.concatenate([starts, total]), np.concatenate([grants, 0.0 * grants], axis=1)
    episodes = np.tile(np.arange(num), 2 * len(schedules))
    all_returns, all_costs, run = play(agent, both[0], RISK, episodes, grants=both[1])
    (returns, informed), (costs, its_costs) = (np.split(x, 2) for x in (all_returns, all_costs))
    lost = lost_to_cuts(starts, grants, run.costs[:, : len(starts)], discount)
    rows = []
    for index, name in enumerate(schedules):
        mine = slice(index * num, (index + 1) * num)
        rows.append(
            {
                "schedule": name,
                "total_budgets": total[mine].tolist(),
                "num_lost_to_cuts": int(lost[mine].sum()),
                "regret": (informed - returns)[mine].tolist(),
                "informed": outcome(informed[mine], its_costs[mine], total[mine]),
            }
            | outcome(returns[mine], costs[mine], total[mine])
        )
    return rows


def cuts(agent: Any, num: int) -> list[dict[str, Any]]:
    """Cuts the maximum budget in mid-episode, at several steps; nobody may be able to keep it."""
    limit, most, discount = agent.task.max_episode_steps, agent.task.max_budget, agent.cost_discount
    seeds, rows = [start_seed(START_SEED, k) for k in range(num)], []
    for step in (tenth * limit // 10 for tenth in range(1, 9)):
        generator = agent.new_generator()
        run = rollout(
            lambda *states, generator=generator: agent.act(*states, generator=generator),
            agent.task.env_id,
            [most] * num,
            seeds,
            cost_discount=discount,
            budget_changes={step: CUT_TO * most},
        )
        later = run.costs[step:]
        spent = discounted_sum(later, discount)
        kept = int((spent <= CUT_TO * most).sum())
        rows.append(
            {
                "step": step,
                "num_episodes": num,
                "num_kept": kept,
                "kept_wilson_95": wilson_interval(kept, num),
                "median_later_cost": float(np.median(spent)),
                "max_later_cost": float(spent.max()),
            }
        )
    return rows


def adaptive(
    agent: Any, num: int, lanes: int = 8, target: float = 0.2, rate: float = 0.1
) -> list[dict[str, Any]]:
    """Compares a fixed with an adaptive risk, in deployments of many episodes in a row.

    Budgets are uniform from 0.1 to 0.6 of the maximum.

    Args:
        agent: The agent.
        num: Half the episodes of a deployment.
        lanes: Deployments of each kind.
        target: The risk at first.
        rate: How fast the adaptive one moves.
    """
    length, results = 2 * num, []
    ratios = np.random.default_rng(START_SEED).uniform(0.1, 0.6, (length, lanes))
    for shift in (shift for shift in SHIFTS if shift.name in NOISY):
        risks = [AdaptiveRisk(target, rate)] * (2 * lanes)  # the first half stays as it is
        margins, played = [], []
        for k in range(length):
            margins.append([agent.margin_for(risk.value) for risk in risks])
            budgets = np.tile(ratios[k], 2) * agent.task.max_budget
            starts = np.tile(k * lanes + np.arange(lanes), 2)
            values = np.array([risk.value for risk in risks])
            returns, costs, _ = play(agent, budgets, values, starts, shift=shift)
            played.append((returns, costs, budgets))
            over = (costs > budgets)[lanes:]
            risks[lanes:] = [risk.update(bool(o)) for risk, o in zip(risks[lanes:], over)]
        for name, half in (("fixed", slice(lanes)), ("adaptive", slice(lanes, None))):
            ends = [float(np.mean(margin[half])) for margin in (margins[0], margins[-1])]
            row = {"shift": shift.name, "risk": name, "target": target, "rate": rate}
            row |= {"first_margin": ends[0], "last_margin": ends[1]}
            results.append(row | outcome(*np.stack(played, axis=1)[..., half].reshape(3, -1)))
    return results


@torch.no_grad()
def disagreement(agent: Any, plan: Any) -> Array:
    """Standard deviation over the one-step models of what each of n plans costs, `(n,)`."""
    dynamics = agent.networks.dynamics
    actions = agent.normalizer.actions(torch.tensor(plan.actions))
    start = agent.normalizer.observations(torch.tensor(plan.observations[:, 0]))
    costs = []
    for member in range(dynamics.num_members):
        state, cost = start, torch.zeros(len(start))
        members = torch.full((len(start),), member)
        for t in range(int(dynamics.trusted_steps)):
            transition = dynamics.step(state, actions[:, t], members)
            state, cost = transition.observation, cost + transition.cost
        costs.append(cost)
    spread: Array = torch.stack(costs).std(dim=0).numpy()
    return spread


class Guarded:
    """Acts with more margin where the one-step models disagree.

    Args:
        agent: An agent with one-step models.
        weight: Margin per unit of disagreement.

    Attributes:
        added: Mean margin that was added at each step.
    """

    def __init__(self, agent: Any, weight: float):
        self._agent, self._weight, self._generator = agent, weight, agent.new_generator()
        self.added: list[float] = []

    def __call__(self, obs: Any, remaining: Array, steps: Array, /) -> Any:
        """Returns the actions."""
        options = {"generator": self._generator}
        plan = self._agent.plan(obs, remaining, steps, **options)
        more = self._weight * disagreement(self._agent, plan)
        self.added.append(float(more.mean()))
        return self._agent.act(obs, remaining - more, steps, **options)


def guard(agent: Any, num: int, weight: float = 5.0) -> list[dict[str, Any]]:
    """Compares more margin where the one-step models disagree with the same amount everywhere."""
    ratio, episode = grid(FEW_RATIOS, range(num))
    budgets, rows = ratio * agent.task.max_budget, []
    for shift in (shift for shift in shifts_of(agent.task.env_id) if shift.name in NOISY):
        act = Guarded(agent, weight)
        for name in ("no guard", "disagreement", "constant"):
            guarded = name == "disagreement"
            constant = float(np.mean(act.added)) if name == "constant" else 0.0
            playing = act if guarded else None
            returns, costs, _ = play(
                agent, budgets, RISK, episode, more=constant, shift=shift, act=playing
            )
            added = float(np.mean(act.added)) if guarded else constant
            row = {"shift": shift.name, "variant": name, "mean_added_margin": added}
            rows.append(row | outcome(returns, costs, budgets))
    return rows
