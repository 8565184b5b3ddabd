"""How benchmarks/trust.py measures what an agent says of its budget before it is spent."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from trust_measures import RISK, margin_of
from trust_settings import START_SEED, play

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.episodes import discounted_sums, is_held_out
from safe_diffusion_agent.evaluation.statistics import auroc, brier_score, calibration_curve


class Switched:
    """Acts without a budget up to a step of its own in each episode, and then with a new budget.

    At the switch, the forecasts are kept: `forecasts` has `(n,)` of each kind.
    """

    def __init__(self, agent: TrebiAgent, at: np.ndarray, budgets: np.ndarray, margin: float):
        self._agent, self._at, self._margin = agent, at, margin
        self._left = np.full(len(at), np.inf)
        self._told = None
        self._budgets = budgets
        self._step = 0
        self.forecasts = {
            name: np.full(len(at), np.nan) for name in ("keep_probability", "safe_mass", "feasible")
        }

    def __call__(self, obs, remaining, steps):
        discount = self._agent.cost_discount
        if self._told is not None:
            spent = self._told - discount * remaining
            self._left = (self._left - spent) / discount
        self._told = remaining
        now = self._at == self._step
        self._left = np.where(now, self._budgets, self._left)
        self._step += 1
        if now.any():
            states = obs[now], self._budgets[now], steps[now]
            feasibility = self._agent.feasibility(*states)
            self.forecasts["keep_probability"][now] = feasibility.keep_probability
            self.forecasts["safe_mass"][now] = feasibility.safe_mass
            told = (states[0], states[1] - self._margin, states[2])
            self.forecasts["feasible"][now] = self._agent.plan(*told).feasible
        return self._agent.act(obs, self._left - self._margin, steps)


def agent_forecasts(agent: TrebiAgent, num: int) -> dict[str, Any]:
    """Forecasts against whether the agent then keeps the budget.

    The states are along episodes without a budget, up to a random step; the budgets a fifth of the
    maximum times the square of a uniform number, so that many cannot be kept by anyone.
    """
    rng = np.random.default_rng(START_SEED)
    limit, max_budget = agent.task.max_episode_steps, agent.task.max_budget
    at = rng.integers(0, int(0.9 * limit), num)
    budgets = 0.2 * max_budget * rng.random(num) ** 2
    policy = Switched(agent, at, budgets, margin_of(agent, RISK))
    start = np.full(num, 10.0 * max_budget)
    run = play(agent, start, 0.0, np.arange(num), act=policy)["run"]
    steps = np.arange(len(run.costs))[:, None]
    weights = np.where(steps >= at, agent.cost_discount ** np.maximum(steps - at, 0), 0.0)
    reached = run.num_steps > at  # the others ended before
    kept = ((weights * run.costs).sum(axis=0) <= budgets)[reached]
    forecasts = {name: values[reached] for name, values in policy.forecasts.items()}
    forecasts["the budget alone"] = (budgets / budgets.max())[reached]
    return {
        "num_states": int(reached.sum()),
        "num_kept": int(kept.sum()),
        "of": {name: quality(values, kept) for name, values in forecasts.items()},
    }


def behavior_forecasts(agent: TrebiAgent, num: int) -> dict[str, Any]:
    """The safe mass against what the data's behavior went on to spend, from random states of it.

    The states are of episodes that the value networks, or the one-step models, were not trained on;
    the frontier's diffusion model has seen them.
    """
    episodes = load_episodes(agent.task.dataset_id)
    rng, config = np.random.default_rng(START_SEED), agent.config
    values = config.model.judge == "values"
    share = config.training.calibration_share if values else config.frontier.held_out_share
    chosen = rng.choice(np.flatnonzero(is_held_out(len(episodes.lengths), share)), size=num)
    at = (rng.random(num) * episodes.lengths[chosen]).astype(int)
    first = (np.cumsum(episodes.lengths) - episodes.lengths)[chosen]
    rest = [
        episodes.costs[s + t : s + n]
        for s, t, n in zip(first, at, episodes.lengths[chosen], strict=True)
    ]
    cost = discounted_sums(
        np.concatenate(rest), np.array([len(part) for part in rest]), agent.cost_discount
    )
    budgets = agent.task.max_budget * rng.random(num)
    obs = episodes.observations[first + chosen + at]  # one more observation than steps per episode
    estimate = agent.feasibility(obs, budgets, agent.task.max_episode_steps - at).safe_mass
    within = cost <= budgets
    return {
        "num_states": num,
        "num_within": int(within.sum()),
        "of": {"safe_mass": quality(estimate, within)},
    }


def quality(forecasts: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    both = 0 < happened.sum() < len(happened)
    return {
        "auroc": auroc(forecasts, happened) if both else None,
        "brier": brier_score(forecasts, happened),
        "curve": [asdict(one) for one in calibration_curve(forecasts, happened)],
    }


def call_times(agent: TrebiAgent, num: int = 10) -> dict[str, float]:
    """Milliseconds of a call for one state at the start of an episode."""
    obs = load_episodes(agent.task.dataset_id).observations[0]
    budget, limit = 0.5 * agent.task.max_budget, agent.task.max_episode_steps
    times = {}
    for name in ("plan", "feasibility"):
        getattr(agent, name)(obs, budget, limit)
        before = time.perf_counter()
        for _ in range(num):
            getattr(agent, name)(obs, budget, limit)
        times[name] = 1000.0 * (time.perf_counter() - before) / num
    return times
