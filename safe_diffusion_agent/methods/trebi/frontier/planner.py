"""Judges plans by the frontier: the most reward that the rest of the budget can still buy.

For a plan with return R and cost C of its own, after which the behavior that is best for return -
m cost would return R_m and cost C_m, the most that a remaining budget z buys is bounded by

    min over m >= 0 of   R + R_m + m (z - C - C_m)                  (Lagrangian dual),

and the plan can be completed within the budget if C + min over m of C_m <= z. This replaces the
Monte Carlo values of Lin et al. 2023, which say what the data's behavior went on to spend, and is
our improvement on the paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Piece, roll_out
from safe_diffusion_agent.methods.trebi.frontier.critic import MULTIPLIERS, FrontierCritic
from safe_diffusion_agent.methods.trebi.planner import Choice, Planner, select_candidate

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

    It is what is left where no mixture of two behaviors is counted on; for comparison.
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
        dynamics: One-step models. Their `trusted_steps` count, the critic stands for the rest.
        critic: The frontier critic.
        bound: One of `BOUNDS`.
    """

    dynamics: DynamicsEnsemble
    critic: FrontierCritic
    bound: str = "dual"

    def rate(self, returns: Tensor, costs: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        """Most return and least cost of plans up to the end of the episode, `(N,)` each.

        Args:
            returns: `(N, G)`, see `curves`.
            costs: `(N, G)`, the same.
            budget: `(N,)`, in cost units.
        """
        multipliers = self.critic.multipliers * self.critic.multiplier_unit()
        return BOUNDS[self.bound](returns, costs, budget, multipliers)

    def curves(self, piece: Piece, steps_left: Tensor) -> tuple[Tensor, Tensor]:
        """Return and cost of each plan and what may follow it, for each multiplier, `(N, G)` each.

        Args:
            piece: The plans, rolled out.
            steps_left: `(N,)` before the first step, >= 1.
        """
        taken = steps_left.clamp(max=piece.actions.shape[1]).minimum(self.dynamics.trusted_steps)
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
        grid = self.critic.multipliers
        returns, costs = self.critic(
            obs.repeat_interleave(len(grid), 0),
            steps_left.repeat_interleave(len(grid), 0),
            grid.repeat(len(obs)),
        )
        return returns.view(len(obs), -1), costs.view(len(obs), -1)

    def roll_out(self, obs: Tensor, plans: Tensor, steps_left: Tensor, habits: bool) -> Piece:
        """Carries out given plans and the critic's own behaviors, all at once.

        Args:
            obs: First observations, `(B, O)`, normalised.
            plans: Normalised actions, `(B, K, H, A)`; K may be 0.
            steps_left: `(B,)`, >= 1.
            habits: Whether the critic's behaviors for the G multipliers follow the plans.

        Returns:
            B (K + G) pieces of H steps; without habits B K.
        """
        critic, (num_states, num_plans, horizon, act_dim) = self.critic, plans.shape
        plans = plans.clamp(critic.action_low, critic.action_high)
        grid = critic.multipliers if habits else critic.multipliers[:0]
        left, multipliers = steps_left.repeat_interleave(len(grid), 0), grid.repeat(num_states)

        def policy(obs: Tensor, t: int) -> Tensor:
            of_habits = obs.view(num_states, -1, obs.shape[1])[:, num_plans:].flatten(0, 1)
            own = critic.act(of_habits, (left - t).clamp_min(1.0), multipliers)
            own = own.view(num_states, len(grid), act_dim)
            return torch.cat([plans[:, :, t], own], dim=1).flatten(0, 1)

        return roll_out(
            self.dynamics,
            obs.repeat_interleave(num_plans + len(grid), 0),
            policy,
            horizon,
            discount=critic.discount,
            cost_discount=critic.cost_discount,
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

    def plan(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Choice:
        """See `Planner`."""
        act_dim, judge = self.task.act_dim, self.judge()
        start = self.normalizer.normalize(obs, slice(act_dim, None))
        sampled = self._sampled(obs, steps, noise)  # (B, K, H, D)
        num_sampled = sampled.shape[1]
        critic_plans = self.config.planner.critic_plans
        piece = judge.roll_out(start, sampled[..., :act_dim], steps, critic_plans)
        imagined = piece.trajectories(start).view(len(obs), -1, *sampled.shape[2:])
        trajectories = torch.cat([sampled, imagined[:, num_sampled:]], dim=1)
        num = trajectories.shape[1]
        returns, costs = judge.curves(piece, steps.repeat_interleave(num, 0))
        rated = judge.rate(returns, costs, budget.repeat_interleave(num, 0))
        returns, costs = (tensor.view(-1, num) for tensor in rated)
        return Choice(trajectories, returns, costs, *select_candidate(returns, costs, budget))

    def _sampled(self, obs: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Candidates of the diffusion model, `(B, K, H, D)`; K may be 0."""
        num = self.config.planner.num_candidates
        if num == 0:
            dim = self.task.act_dim + self.task.obs_dim
            return obs.new_empty(len(obs), 0, self.config.model.horizon, dim)
        row_obs, row_steps = (tensor.repeat_interleave(num, 0) for tensor in (obs, steps))
        final, _ = self.draw(row_obs, row_steps, noise)
        return self.clip(final).view(len(obs), num, *final.shape[1:])


def imagined_costs(
    planner: FrontierPlanner, obs: Tensor, steps: Tensor, generator: torch.Generator
) -> Tensor:
    """Discounted cost of the behavior in the models up to the end of the episode, `(N,)`.

    Args:
        planner: Its diffusion model acts, for H steps at a time.
        obs: `(N, O)`, in environment units.
        steps: `(N,)`, steps up to the time limit.
        generator: Gives the random numbers.
    """
    dynamics, act_dim = planner.networks.dynamics, planner.task.act_dim
    members = torch.arange(len(obs), device=obs.device) % dynamics.num_members
    state = planner.normalizer.normalize(obs, slice(act_dim, None))
    cost, weight = torch.zeros_like(steps), torch.ones_like(steps)
    for t in range(int(steps.max())):
        position = t % planner.config.model.horizon
        if position == 0:
            current = planner.normalizer.unnormalize(state, slice(act_dim, None))
            noise = planner.draw_noise(len(current), generator)
            trajectories, _ = planner.draw(current, (steps - t).clamp_min(1.0), noise)
            actions = planner.clip(trajectories)[:, :, :act_dim]
        transition = dynamics.step(state, actions[:, position], members)
        cost = cost + weight * (steps > t) * transition.cost
        weight = weight * planner.networks.critic.cost_discount * transition.survival
        state = transition.observation
    return cost
