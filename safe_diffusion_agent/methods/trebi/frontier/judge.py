"""Judges plans by the frontier: the most reward that the rest of the budget can still buy.

For a plan with return R and cost C of its own, after which the behavior that is best for return -
m cost would return R_m and cost C_m, the most that a remaining budget z buys is bounded by

    min over m >= 0 of   R + R_m + m (z - C - C_m)                  (Lagrangian dual),

and the plan can be completed within the budget if C + min over m of C_m <= z. This replaces the
Monte Carlo values of Lin et al. 2023, which say what the data's behavior went on to spend, and is
our improvement on the paper.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, ModelRollout, imagine
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic, FrontierNetworks
from safe_diffusion_agent.methods.trebi.frontier.resting import (
    after_waiting,
    as_long_as_it_lasts,
    best_wait,
    stopping_cost,
)
from safe_diffusion_agent.methods.trebi.plan import Rated
from safe_diffusion_agent.methods.trebi.planner import Sampler, TensorPair
from safe_diffusion_agent.settings import check

HEAD_START = 0.1  # of the standard deviation of the data's returns and costs
NUM_CAREFUL = 3  # largest multipliers, the least of whose costs is taken as reachable


def most_return(
    returns: Tensor, costs: Tensor, budget: Tensor, multipliers: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the dual bound, and the least reachable cost.

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
    """Returns, without the dual, the best return among the multipliers whose cost fits.

    It is what is left where no mixture of two behaviors is counted on; for comparison.
    """
    least_cost = costs[:, -NUM_CAREFUL:].min(dim=1).values
    fits = costs <= budget[:, None]
    best = returns.masked_fill(~fits, -torch.inf).max(dim=1).values
    return torch.where(fits.any(dim=1), best, returns[:, -1]), least_cost


BOUNDS = {"dual": most_return, "single": best_single_return}


class FrontierJudge:
    """Samples without guidance, adds the critic's behaviors, and rates all by the frontier.

    The critic's behaviors make the choice consistent from step to step without any memory: what was
    counted on is among the candidates again.
    """

    networks_class: ClassVar[Any] = FrontierNetworks
    looks_at_time, predicts_costs = True, False

    def __init__(self, sampler: Sampler):
        planner = sampler.config.planner
        self.sampler, self.config = sampler, sampler.config
        self.dynamics: DynamicsEnsemble = sampler.networks.dynamics
        self.critic: FrontierCritic = sampler.networks.critic
        self.refresh()
        own = planner.critic_plans * len(self.critic.multipliers)
        self._idle_index = planner.num_candidates
        number = planner.num_candidates + own
        check(number > 0, "without critic_plans, num_candidates should be positive", 0)
        self.num_candidates = number + planner.idle_plan

    def refresh(self) -> None:
        """Looks at what the networks learned from; it is called when that has changed."""
        self._imitates = bool(self.critic.imitates)
        may_end = bool(self.dynamics.terminates)
        self._rests = self._imitates and self.config.planner.idle_plan and not may_end
        self._stops = self._rests and self.critic.cost_discount == 1.0

    def candidates(self, obs: Tensor, budget: Tensor, steps: Tensor, noise: Tensor) -> Rated:
        """Returns candidates of the states `(B, O)`, rated for the budgets and steps `(B,)`."""
        act_dim = self.sampler.task.act_dim
        start = self.sampler.normalizer.observations(obs)
        sampled = self._sampled(obs, steps, noise)
        own, plans = self.config.planner.critic_plans, sampled[..., :act_dim]
        if self.config.planner.idle_plan:
            plans = torch.cat([plans, self._idle(plans)], dim=1)
        rollout = self.imagine_plans(start, plans, steps, behaviors=own)
        imagined = rollout.trajectories(start).view(len(obs), -1, *sampled.shape[2:])
        trajectories = torch.cat([sampled, imagined[:, sampled.shape[1] :]], dim=1)
        num = trajectories.shape[1]
        returns, costs, worth = self._rate(rollout, budget, steps, num)
        head_start = None
        if own and self._imitates:
            worth = worth.view(len(obs), num, -1)[:, -len(self.critic.multipliers) :]
            head_start = self._head_start(returns, worth.diagonal(dim1=1, dim2=2), steps)
        return Rated(trajectories, returns, costs, head_start)

    def _rate(
        self, rollout: ModelRollout, budget: Tensor, steps: Tensor, num: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rates `num` plans of each of B states.

        Returns:
            The most return and the least cost up to the episode's end, `(B, K)` each, and what is
            had by following each of the critic's behaviors after each plan, `(B K, G)`; -inf where
            the budget does not allow it.
        """
        left, budgets = steps.repeat_interleave(num, 0), budget.repeat_interleave(num, 0)
        plans, follows = self._plans_and_rest(rollout, left)
        if self._stops:
            idle = self._idle_of(rollout, num)
            stopping = stopping_cost(idle, self._taken(idle, steps), steps)
            after = stopping.repeat_interleave(num, 0) * (left > self._taken(rollout, left))
            returns = as_long_as_it_lasts(plans, follows, budgets - after)
            costs = (plans[1] + after[:, None]).expand_as(returns)
            rated, least = returns.max(dim=1).values, costs[:, 0]
        else:
            returns, costs = plans[0] + follows[0], plans[1] + follows[1]
            rated, least = self.rate(returns, costs, budgets)
        worth = returns.masked_fill(costs > budgets[:, None], -torch.inf)
        rated, least, index = rated.view(-1, num), least.view(-1, num), self._idle_index
        if self._stops:  # from then on
            rated[:, index], least[:, index] = plans[0].view(-1, num)[:, index], stopping
        elif self._rests:
            idle = self._idle_of(rollout, num)
            waiting = after_waiting(self.critic, idle, self._taken(idle, steps), steps)
            rated[:, index], least[:, index] = best_wait(*waiting, budget)
        elif self._imitates and self.config.planner.idle_plan:
            least[:, index] = torch.inf  # nothing says what would come of it
        return rated, least, worth

    def _idle_of(self, rollout: ModelRollout, num: int) -> ModelRollout:
        """Returns, of `num` rollouts of each state, that of doing nothing."""
        return ModelRollout(*(part[self._idle_index :: num] for part in vars(rollout).values()))

    def _head_start(self, rated: Tensor, worth: Tensor, steps: Tensor) -> TensorPair:
        """Returns by how much others have to be better than what is usual, `(B, K)` each.

        Ratings are noisy, and of many the best is likely to be one of the most wrong. A critic that
        imitates knows behaviors that were carried out to the end; what takes their place should
        be better by more than the noise. Usual is, of the behaviors that the budget allows, the one
        of the smallest price that none is better than by as much, or to do nothing, where that is.
        If it allows none, it is to do nothing, where that is believed, and else the behavior of the
        largest price.

        Args:
            rated: `(B, K)`, returns of the candidates.
            worth: `(B, G)`, of the behaviors.
            steps: `(B,)`.
        """
        num, best = rated.shape[1], worth.max(dim=1).values
        lead = HEAD_START * self.critic.return_scale * steps / self.critic.max_steps
        if self._stops:  # whatever is done first, the budget buys about the same in the end
            lead = lead.maximum(HEAD_START * best)
        good = worth >= (best - lead)[:, None]
        usual = num - worth.shape[1] + good.to(worth.dtype).argmax(dim=1)
        instead = self._idle_index if self._rests else num - 1
        if self._rests:
            usual = torch.where(rated[:, instead] > best + lead, instead, usual)
        usual = torch.where(best.isneginf(), instead, usual)
        candidates = torch.arange(num, device=rated.device)
        favored = (candidates == usual[:, None]).to(rated.dtype)
        return favored * lead[:, None], favored * HEAD_START * self.critic.cost_scale

    def rate(self, returns: Tensor, costs: Tensor, budget: Tensor) -> TensorPair:
        """Returns the most return and the least cost of plans up to the episode's end, `(N,)` each.

        Args:
            returns: `(N, G)`, return of each plan and what follows it, for each multiplier.
            costs: `(N, G)`, the same of the cost.
            budget: `(N,)`, in cost units.
        """
        multipliers = self.critic.multipliers * self.critic.multiplier_unit()
        return BOUNDS[self.config.planner.bound](returns, costs, budget, multipliers)

    def return_and_cost(self, rollout: ModelRollout, steps_left: Tensor) -> TensorPair:
        """Returns return and cost of plans and what may follow, for each multiplier, `(N, G)` each.

        Args:
            rollout: The plans in the models, which are believed for their `trusted_steps`; the
                critic stands for the rest.
            steps_left: `(N,)` before the first step, >= 1.
        """
        plans, follows = self._plans_and_rest(rollout, steps_left)
        return plans[0] + follows[0], plans[1] + follows[1]

    def _plans_and_rest(
        self, rollout: ModelRollout, steps_left: Tensor
    ) -> tuple[TensorPair, TensorPair]:
        """Returns return and cost of plans, `(N, 1)`, and of what may follow, `(N, G)`, each."""
        taken = self._taken(rollout, steps_left)
        plan_return, plan_cost, survival, last_obs = rollout.after(taken)
        returns, costs = self.values_to_go(last_obs, steps_left - taken)
        discount = survival * self.critic.discount**taken
        cost_discount = survival * self.critic.cost_discount**taken
        follows = discount[:, None] * returns, cost_discount[:, None] * costs
        return (plan_return[:, None], plan_cost[:, None]), follows

    def _taken(self, rollout: ModelRollout, steps_left: Tensor) -> Tensor:
        """Returns how many steps of a rollout are believed, `(N,)`, >= 1."""
        horizon = rollout.actions.shape[1]
        return steps_left.clamp(max=horizon).minimum(self.dynamics.trusted_steps)

    def values_to_go(self, obs: Tensor, steps_left: Tensor) -> TensorPair:
        """Returns return-to-go and cost-to-go for each multiplier, `(N, G)` each."""
        grid = self.critic.multipliers
        returns, costs = self.critic(
            obs.repeat_interleave(len(grid), 0),
            steps_left.repeat_interleave(len(grid), 0),
            grid.repeat(len(obs)),
        )
        return returns.view(len(obs), -1), costs.view(len(obs), -1)

    def imagine_plans(
        self, obs: Tensor, plans: Tensor, steps_left: Tensor, *, behaviors: bool
    ) -> ModelRollout:
        """Carries out given plans and the critic's behaviors in the models, all at once.

        Args:
            obs: First observations, `(B, O)`, normalized.
            plans: Normalized actions, `(B, K, H, A)`; K may be 0.
            steps_left: `(B,)`, >= 1.
            behaviors: Whether the critic's behaviors for the G multipliers follow the plans.

        Returns:
            B (K + G) rollouts of H steps; without behaviors B K.
        """
        critic, (num_states, num_plans, horizon, act_dim) = self.critic, plans.shape
        plans = plans.clamp(critic.action_low, critic.action_high)
        grid = critic.multipliers if behaviors else critic.multipliers[:0]
        left, multipliers = steps_left.repeat_interleave(len(grid), 0), grid.repeat(num_states)

        def policy(obs: Tensor, t: int) -> Tensor:
            following = obs.view(num_states, -1, obs.shape[1])[:, num_plans:].flatten(0, 1)
            own = critic.act(following, (left - t).clamp_min(1.0), multipliers)
            own = own.view(num_states, len(grid), act_dim)
            return torch.cat([plans[:, :, t], own], dim=1).flatten(0, 1)

        return imagine(
            self.dynamics,
            obs.repeat_interleave(num_plans + len(grid), 0),
            policy,
            horizon,
            discount=critic.discount,
            cost_discount=critic.cost_discount,
        )

    def costs_of_behavior(self, obs: Tensor, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Returns what the data's behavior spends in the models up to the episode's end, `(N,)`.

        Each episode is in one member of the ensemble; the diffusion model acts, for H steps at a
        time.
        """
        sampler, normalizer = self.sampler, self.sampler.normalizer
        act_dim, dynamics = sampler.task.act_dim, self.dynamics
        members = torch.arange(len(obs), device=obs.device) % dynamics.num_members
        state = normalizer.observations(obs)
        cost, weight = torch.zeros_like(steps), torch.ones_like(steps)
        for t in range(int(steps.max())):
            position = t % self.config.model.horizon
            if position == 0:
                current = normalizer.to_environment(state, slice(act_dim, None))
                noise = sampler.draw_noise(len(current), generator)
                trajectories, _ = sampler.draw(current, (steps - t).clamp_min(1.0), noise)
                actions = sampler.clip(trajectories)[:, :, :act_dim]
            transition = dynamics.step(state, actions[:, position], members)
            cost = cost + weight * (steps > t) * transition.cost
            weight = weight * self.critic.cost_discount * transition.survival
            state = transition.observation
        return cost

    @torch.no_grad()
    def foresee(self, plans: Tensor, obs: Tensor, steps: Tensor) -> tuple[TensorPair, TensorPair]:
        """Returns cost and return of plans and what may follow, and of the critic's behaviors.

        Args:
            plans: Trajectories of one state, `(1, K, H, D)`, normalized.
            obs: The state, `(1, O)`, in environment units.
            steps: `(1,)`, steps up to the time limit.

        Returns:
            `(K, G)` twice, and `(1, G)` twice, for each multiplier.
        """
        start, num = self.sampler.normalizer.observations(obs), plans.shape[1]
        actions = plans[..., : self.sampler.task.act_dim]
        rollout = self.imagine_plans(start, actions, steps, behaviors=False)
        returns, costs = self.return_and_cost(rollout, steps.repeat_interleave(num, 0))
        alone_returns, alone_costs = self.values_to_go(start, steps)
        return (costs, returns), (alone_costs, alone_returns)

    def _idle(self, plans: Tensor) -> Tensor:
        """Returns, for plans `(B, K, H, A)`, those of no action at all, `(B, 1, H, A)`."""
        act_dim = self.sampler.task.act_dim
        none = self.sampler.normalizer.actions(plans.new_zeros(act_dim))
        return none.expand(len(plans), 1, plans.shape[2], act_dim)  # `imagine_plans` clips them

    def _sampled(self, obs: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Returns candidates of the diffusion model, `(B, K, H, D)`; K may be 0."""
        num, task = self.config.planner.num_candidates, self.sampler.task
        if num == 0:
            dim = task.act_dim + task.obs_dim
            return obs.new_empty(len(obs), 0, self.config.model.horizon, dim)
        row_obs, row_steps = (tensor.repeat_interleave(num, 0) for tensor in (obs, steps))
        final, _ = self.sampler.draw(row_obs, row_steps, noise)
        return self.sampler.clip(final).view(len(obs), num, *final.shape[1:])
