"""How benchmarks/trust.py measures kept budgets: under risks, shifts, and budgets that move."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safe_diffusion_agent.evaluation.schedules import (
    lost_to_cuts,
    one_change,
    random_walk,
    top_ups,
    total_budget,
)
from trust_settings import SHIFTS, START_SEED, Shift, grid, play, shifts_of

from safe_diffusion_agent import AdaptiveRisk, TrebiAgent
from safe_diffusion_agent.evaluation.statistics import wilson_interval

RISKS = (None, 0.02, 0.05, 0.1, 0.2, 0.4)
RATIOS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
FEW_RATIOS = (0.1, 0.3, 0.6)
GUARDED_FROM = ("none", "noise 0.15")
ADAPTED_TO = ("none", "noise 0.15")
RISK = 0.05  # where one is enough


def share_over(over: np.ndarray) -> dict[str, Any]:
    num, total = int(over.sum()), len(over)
    return {"num_over": num, "num_episodes": total, "wilson_95": wilson_interval(num, total)}


def margin_of(agent: TrebiAgent, risk: float | None) -> float:
    return 0.0 if risk is None else agent.margin_for(risk)


def risk_curve(
    agent: TrebiAgent, shift: Shift, ratios: tuple[float, ...], num: int
) -> list[dict[str, Any]]:
    """Share of episodes over budget and return, for each requested risk and budget.

    All risks and budgets have the same start states. A risk that the agent has too few scores for
    is left out.
    """
    risks = [risk for risk in RISKS if np.isfinite(margin_of(agent, risk))]
    which, ratio, episode = grid(range(len(risks)), ratios, range(num))
    margins = np.array([margin_of(agent, risk) for risk in risks])
    budgets = ratio * agent.task.max_budget
    played = play(agent, budgets, margins[which], episode, shift=shift)
    over = played["cost"] > budgets
    return [
        {
            "risk": risk,
            "margin": float(margins[k]),
            "ratio": r,
            "mean_return": float(played["return"][rows].mean()),
            "mean_cost": float(played["cost"][rows].mean()),
            "largest_overrun": float((played["cost"] - budgets)[rows].max()),
            **share_over(over[rows]),
        }
        for k, risk in enumerate(risks)
        for r in ratios
        for rows in [(which == k) & (ratio == r)]
    ]


def shifted_risk_curves(agent: TrebiAgent, num: int) -> list[dict[str, Any]]:
    return [
        {"shift": asdict(shift), "rows": risk_curve(agent, shift, FEW_RATIOS, num)}
        for shift in shifts_of(agent.task.env_id)
        if shift.name != "none"
    ]


def schedules_of(agent: TrebiAgent, num: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Budgets at the start `(n,)` and grants `(T, n)`; no total is below a tenth of the maximum."""
    rng = np.random.default_rng(START_SEED)
    limit, most, discount = agent.task.max_episode_steps, agent.task.max_budget, agent.cost_discount
    at = rng.integers(limit // 10, limit // 2, num)
    worth = discount ** -at.astype(float)  # of one unit of the start, at that step
    day = limit // 8
    full = np.ones(num)
    allowance = top_ups(limit, day, full)
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


def moving_budgets(agent: TrebiAgent, num: int) -> list[dict[str, Any]]:
    """Each schedule, and the same agent given its total budget from the start."""
    schedules, discount = schedules_of(agent, num), agent.cost_discount
    starts, grants = (np.concatenate(parts, axis=-1) for parts in zip(*schedules.values()))
    total = total_budget(starts, grants, discount)
    both = np.concatenate([starts, total]), np.concatenate([grants, 0.0 * grants], axis=1)
    episodes = np.tile(np.arange(num), 2 * len(schedules))
    played = play(agent, both[0], margin_of(agent, RISK), episodes, grants=both[1])
    costs, returns = (np.split(played[name], 2) for name in ("cost", "return"))
    lost = lost_to_cuts(starts, grants, played["run"].costs[:, : len(starts)], discount)
    rows = []
    for index, name in enumerate(schedules):
        mine = slice(index * num, (index + 1) * num)
        rows.append(
            {
                "schedule": name,
                "total_budgets": total[mine].tolist(),
                "num_lost_to_cuts": int(lost[mine].sum()),
                "largest_overrun": float((costs[0] - total)[mine].max()),
                "mean_return": float(returns[0][mine].mean()),
                "regret": (returns[1] - returns[0])[mine].tolist(),
                "informed": {
                    "mean_return": float(returns[1][mine].mean()),
                    **share_over((costs[1] > total)[mine]),
                },
                **share_over((costs[0] > total)[mine]),
            }
        )
    return rows


def adaptive(
    agent: TrebiAgent, lanes: int, num: int, target: float = 0.2, rate: float = 0.1
) -> list[dict[str, Any]]:
    """Deployments of `num` episodes in a row, each with a fixed and with an adaptive risk.

    Budgets are uniform from 0.1 to 0.6 of the maximum.
    """
    ratios = np.random.default_rng(START_SEED).uniform(0.1, 0.6, (num, lanes))
    results = []
    for shift in (shift for shift in SHIFTS if shift.name in ADAPTED_TO):
        risks = [AdaptiveRisk(target, rate)] * (2 * lanes)  # the first half stays as it is
        over, returns, margins = [], [], []
        for k in range(num):
            margins.append([agent.margin_for(risk.value) for risk in risks])
            budgets = np.tile(ratios[k], 2) * agent.task.max_budget
            starts = np.tile(k * lanes + np.arange(lanes), 2)
            played = play(agent, budgets, np.array(margins[-1]), starts, shift=shift)
            over.append(played["cost"] > budgets)
            returns.append(played["return"])
            risks[lanes:] = [
                risk.update(bool(o)) for risk, o in zip(risks[lanes:], over[-1][lanes:])
            ]
        for name, half in (("fixed", slice(lanes)), ("adaptive", slice(lanes, None))):
            results.append(
                {
                    "shift": shift.name,
                    "risk": name,
                    "target": target,
                    "rate": rate,
                    "first_margin": float(np.mean(margins[0][half])),
                    "last_margin": float(np.mean(margins[-1][half])),
                    "mean_return": float(np.array(returns)[:, half].mean()),
                    **share_over(np.array(over)[:, half].ravel()),
                }
            )
    return results


@torch.no_grad()
def disagreement(agent: TrebiAgent, obs, budgets, steps) -> np.ndarray:
    """Standard deviation over the ensemble of what the chosen plan costs in each member, `(n,)`."""
    plan = agent.plan(obs, budgets, steps)
    dynamics, act_dim = agent.networks.dynamics, agent.task.act_dim
    actions = agent.normalizer.normalize(torch.tensor(plan.actions), slice(0, act_dim))
    start = agent.normalizer.normalize(torch.tensor(plan.observations[:, 0]), slice(act_dim, None))
    costs = []
    for member in range(dynamics.num_members):
        state, cost = start, torch.zeros(len(start))
        members = torch.full((len(start),), member)
        for t in range(int(dynamics.trusted_steps)):
            transition = dynamics.step(state, actions[:, t], members)
            state, cost = transition.observation, cost + transition.cost
        costs.append(cost)
    return torch.stack(costs).std(dim=0).numpy()


def guard(agent: TrebiAgent, num: int, weight: float = 5.0) -> list[dict[str, Any]]:
    """More margin where the one-step models disagree, against the same amount everywhere."""
    ratio, episode = grid(FEW_RATIOS, range(num))
    budgets, rows = ratio * agent.task.max_budget, []
    for shift in shifts_of(agent.task.env_id):
        if shift.name not in GUARDED_FROM:
            continue
        added: list[float] = []

        def guarded(obs, remaining, steps, added=added):
            more = weight * disagreement(agent, obs, remaining, steps)
            added.append(float(more.mean()))
            return agent.act(obs, remaining - more, steps)

        variants = {
            "no guard": (0.0, None),
            "disagreement": (0.0, guarded),
            "constant": (None, None),
        }
        for name, (constant, act) in variants.items():
            constant = float(np.mean(added)) if constant is None else constant
            margin = margin_of(agent, RISK) + constant
            played = play(agent, budgets, margin, episode, shift=shift, act=act)
            rows.append(
                {
                    "shift": shift.name,
                    "variant": name,
                    "mean_added_margin": float(np.mean(added)) if act else constant,
                    "mean_return": float(played["return"].mean()),
                    **share_over(played["cost"] > budgets),
                }
            )
    return rows
