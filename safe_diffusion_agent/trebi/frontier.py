"""Judges plans by the frontier: the most reward that the rest of the budget can still buy.

For a plan with return R and cost C of its own, after which the behaviour that is best for return -
m cost would return R_m and cost C_m, the most that a remaining budget z buys is bounded by

    min over m >= 0 of   R + R_m + m (z - C - C_m)                  (Lagrangian dual),

and the plan can be completed within the budget if C + min over m of C_m <= z. This replaces the
Monte Carlo values of Lin et al. 2023, which say what the data's behaviour went on to spend, and is
our improvement on the paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.trebi.dynamics import DynamicsEnsemble, Piece, StepPolicy, roll_out
from safe_diffusion_agent.trebi.frontier_networks import MULTIPLIERS, FrontierCritic
from safe_diffusion_agent.trebi.planners import Choice, Planner, select_candidate

NUM_CAREFUL = 3  # largest multipliers, the least of whose costs is taken as reachable


def most_return(
    returns: Tensor, costs: Tensor, budget: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """The dual bound, and the least reachable cost.

    Args:
        returns: `(N, G)`, return of the plan and what follows it, for each multiplier.
        costs: `(N, G)`, the same of the cost.
        budget: z, `(N,)`; `inf` for no constraint.
        multipliers: `(G,)`, ascending from 0, in return per cost.

    Returns:
        The most return that the budget buys, `(N,)`, and the least cost, `(N,)`.
    """
    slack = multipliers * (budget[:, None] - costs)
    bounds = returns + torch.where(multipliers > 0, slack, 0.0)  # 0 * inf would be NaN
    return bounds.min(dim=1).values, costs[:, -NUM_CAREFUL:].min(dim=1).values


def best_single_return(
    returns: Tensor, costs: Tensor, budget: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Without the dual: the best return among the multipliers whose cost fits; see `most_return`.

    It is what is left where no mixture of two behaviours is counted on; for comparison.
    """
    least_cost = costs[:, -NUM_CAREFUL:].min(dim=1).values
    fits = costs <= budget[:, None]
    best = returns.masked_fill(~fits, -torch.inf).max(dim=1).values
    return torch.where(fits.any(dim=1), best, returns[:, -1]), least_cost


BOUNDS = {"dual": most_return, "single": best_single_return}


@dataclass(frozen=True)
class Judge:
    """Rates plans by rolling their actions out in the model and asking the critic for the rest.

    Attributes:
        dynamics: One-step models. Their `trusted_steps` are rolled out at most.
        critic: The frontier critic.
        bound: One of `BOUNDS`.
    """

    dynamics: DynamicsEnsemble
    critic: FrontierCritic
    bound: str = "dual"

    def rate(
        self, trajectories: Tensor, budget: Tensor, steps_left: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Most return and least cost of each plan up to the end of the episode, `(N,)` each.

        Args:
            trajectories: See `curves`.
            budget: `(N,)`, in cost units.
            steps_left: See `curves`.
        """
        returns, costs = self.curves(trajectories, steps_left)
        multipliers = self.multipliers(budget) * self.critic.multiplier_unit()
        return BOUNDS[self.bound](returns, costs, budget, multipliers)

    def curves(self, trajectories: Tensor, steps_left: Tensor) -> tuple[Tensor, Tensor]:
        """Return and cost of each plan and what may follow it, for each multiplier, `(N, G)` each.

        Args:
            trajectories: `(N, H, A + O)`, normalised. Of the observations only the first counts.
            steps_left: `(N,)`, >= 1.
        """
        act_dim = len(self.critic.action_low)
        num_steps = min(int(self.dynamics.trusted_steps), trajectories.shape[1])
        actions = trajectories[:, :, :act_dim]
        actions = actions.clamp(self.critic.action_low, self.critic.action_high)
        piece = self._roll_out(trajectories[:, 0, act_dim:], lambda _, t: actions[:, t], num_steps)
        taken = steps_left.clamp(max=num_steps)
        plan_return, plan_cost, survival, last_obs = piece.after(taken)
        returns, costs = self.frontier(last_obs, steps_left - taken)
        discount = survival * self.critic.discount**taken
        cost_discount = survival * self.critic.cost_discount**taken
        return (
            plan_return[:, None] + discount[:, None] * returns,
            plan_cost[:, None] + cost_discount[:, None] * costs,
        )

    def frontier(self, obs: Tensor, steps_left: Tensor) -> tuple[Tensor, Tensor]:
        """Return-to-go and cost-to-go for each multiplier, `(N, G)` each."""
        grid = self.multipliers(obs)
        returns, costs = self.critic(
            obs.repeat_interleave(len(grid), 0),
            steps_left.repeat_interleave(len(grid), 0),
            grid.repeat(len(obs)),
        )
        return returns.view(len(obs), -1), costs.view(len(obs), -1)

    def habits(self, obs: Tensor, steps_left: Tensor, horizon: int) -> Tensor:
        """Plans of the critic's own behaviours, one for each multiplier.

        Args:
            obs: `(N, O)`, normalised.
            steps_left: `(N,)`.
            horizon: H.

        Returns:
            Trajectories `(N, G, H, A + O)`, normalised.
        """
        grid = self.multipliers(obs)
        num = len(grid)
        start, multipliers = obs.repeat_interleave(num, 0), grid.repeat(len(obs))
        left = steps_left.repeat_interleave(num, 0)
        piece = self._roll_out(
            start, lambda o, t: self.critic.act(o, (left - t).clamp_min(1.0), multipliers), horizon
        )
        observations = torch.cat([start[:, None], piece.observations[:, :-1]], dim=1)
        return torch.cat([piece.actions, observations], dim=-1).view(len(obs), num, horizon, -1)

    def multipliers(self, like: Tensor) -> Tensor:
        """The relative multipliers, `(G,)`, on the device of `like`."""
        return torch.tensor(MULTIPLIERS, device=like.device)

    def _roll_out(self, obs: Tensor, policy: StepPolicy, num_steps: int) -> Piece:
        return roll_out(
            self.dynamics,
            obs,
            policy,
            num_steps,
            discount=self.critic.discount,
            cost_discount=self.critic.cost_discount,
        )


class FrontierPlanner(Planner):
    """Samples without guidance, adds the critic's own plans, and judges all by the frontier.

    The critic's plans make the choice consistent from step to step without any memory: what was
    counted on is among the candidates again.
    """

    @property
    def num_candidates(self) -> int:
        """K, candidates per state: those of the diffusion model, and the critic's."""
        planner = self.config.planner
        return planner.num_candidates + planner.critic_plans * len(MULTIPLIERS)

    def judge(self) -> Judge:
        """What the plans are judged by."""
        return Judge(self.networks.dynamics, self.networks.critic, self.config.planner.bound)

    def __call__(
        self, obs: Tensor, budget: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Choice:
        """See `Planner`."""
        planner, act_dim, judge = self.config.planner, self.task.act_dim, self.judge()
        start = self.normalizer.normalize(obs, slice(act_dim, None))
        row_obs = obs.repeat_interleave(planner.num_candidates, 0)
        row_steps = steps.repeat_interleave(planner.num_candidates, 0)
        sampled = self.clip(self.draw(row_obs, row_steps, generator)[0])
        candidates = [sampled.view(len(obs), -1, *sampled.shape[1:])]
        if planner.critic_plans:
            candidates.append(judge.habits(start, steps, self.config.model.horizon))
        trajectories = torch.cat(candidates, dim=1)
        num = trajectories.shape[1]
        rated = judge.rate(
            trajectories.flatten(0, 1),
            budget.repeat_interleave(num, 0),
            steps.repeat_interleave(num, 0),
        )
        returns, costs = (tensor.view(-1, num) for tensor in rated)
        return Choice(trajectories, returns, costs, *select_candidate(returns, costs, budget))
