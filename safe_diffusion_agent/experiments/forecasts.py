"""What an agent says of its budget before it is spent, against what becomes of it."""

from typing import Any

import numpy as np

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.episodes import is_held_out, values_to_go
from safe_diffusion_agent.evaluation.statistics import auroc, brier_score, calibration_curve
from safe_diffusion_agent.experiments.shifts import START_SEED, Array, held_back, play

KINDS = ("keep_probability", "safe_mass", "feasible")


class Switched:
    """Acts without a budget up to a step of its own in each episode, and then with a new one.

    Args:
        agent: The agent.
        at: `(n,)`, the step at which the budget becomes the new one.
        budgets: `(n,)`, the new budgets.
        risk: What is held back of them is for it; None is nothing.

    Attributes:
        forecasts: What was forecast at the switch: kind -> `(n,)`.
    """

    def __init__(self, agent: Any, at: Array, budgets: Array, risk: float | None):
        self._agent, self._at, self._budgets, self._risk = agent, at, budgets, risk
        self._generator = agent.new_generator()
        self._left = np.full(len(at), np.inf)
        self._told: Array | None = None
        self._step = 0
        self.forecasts = {name: np.full(len(at), np.nan) for name in KINDS}

    def __call__(self, obs: Any, remaining: Array, steps: Array, /) -> Any:
        """Returns the actions; makes the forecasts of the episodes that switch now."""
        discount = self._agent.cost_discount
        if self._told is not None:
            spent = self._told - discount * remaining
            self._left = (self._left - spent) / discount
        self._told = remaining
        now = self._at == self._step
        self._left = np.where(now, self._budgets, self._left)
        self._step += 1
        options = {"generator": self._generator}
        if now.any():
            obs_now, budgets, steps_now = obs[now], self._budgets[now], steps[now]
            feasibility = self._agent.feasibility(obs_now, budgets, steps_now, **options)
            self.forecasts["keep_probability"][now] = feasibility.keep_probability
            self.forecasts["safe_mass"][now] = feasibility.safe_mass
            allowed = budgets - held_back(self._agent, self._risk, steps_now)
            plan = self._agent.plan(obs_now, allowed, steps_now, **options)
            self.forecasts["feasible"][now] = plan.feasible
        allowed = self._left - held_back(self._agent, self._risk, steps)
        return self._agent.act(obs, allowed, steps, **options)


def agent_forecasts(agent: Any, num: int, risk: float | None) -> dict[str, Any]:
    """Compares forecasts with whether the agent then keeps the budget.

    The states are along episodes without a budget, up to a random step; the budgets a fifth of the
    maximum times the square of a uniform number, so that many cannot be kept by anyone.

    Args:
        agent: Loaded without a margin of its own.
        num: States.
        risk: What is held back of the budgets is for it; None is nothing.
    """
    rng = np.random.default_rng(START_SEED)
    limit, max_budget = agent.task.max_episode_steps, agent.task.max_budget
    at = rng.integers(0, int(0.9 * limit), num)
    budgets = 0.2 * max_budget * rng.random(num) ** 2
    policy = Switched(agent, at, budgets, risk)
    _, _, run = play(agent, np.full(num, 10.0 * max_budget), None, np.arange(num), act=policy)
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


def behavior_forecasts(agent: Any, num: int) -> dict[str, Any]:
    """Compares the safe mass with what the data's behavior went on to spend.

    The states are of episodes that the value networks, or the one-step models, were not trained on;
    the frontier's diffusion model has seen them.

    Args:
        agent: Its dataset is on this machine.
        num: States.
    """
    episodes = load_episodes(agent.task.dataset_id)
    rng, config = np.random.default_rng(START_SEED), agent.config
    has_models = hasattr(agent.networks, "dynamics")
    share = config.frontier.held_out_share if has_models else config.training.calibration_share
    chosen = rng.choice(np.flatnonzero(is_held_out(len(episodes.lengths), share)), size=num)
    at = (rng.random(num) * episodes.lengths[chosen]).astype(int)
    steps = episodes.first_steps[chosen] + at
    cost = values_to_go(episodes.costs, episodes.lengths, agent.cost_discount)[steps]
    budgets = agent.task.max_budget * rng.random(num)
    states = episodes.observations[episodes.rows[steps]], budgets
    left = agent.task.max_episode_steps - at
    estimate = agent.feasibility(*states, left, generator=agent.new_generator()).safe_mass
    within = cost <= budgets
    return {
        "num_states": num,
        "num_within": int(within.sum()),
        "of": {"safe_mass": quality(estimate, within)},
    }


def quality(forecasts: Array, happened: Array) -> dict[str, Any]:
    """Returns how well forecasts `(n,)` tell what happened `(n,)`; no AUROC of one outcome."""
    both = 0 < happened.sum() < len(happened)
    return {
        "auroc": auroc(forecasts, happened) if both else None,
        "brier": brier_score(forecasts, happened),
        "curve": calibration_curve(forecasts, happened),
    }
