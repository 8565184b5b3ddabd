"""Trains the one-step models, and finds out for how many steps they can be believed."""

import torch
from torch import Tensor
from torch.nn import functional

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, ModelRollout, imagine
from safe_diffusion_agent.learning.training import Training
from safe_diffusion_agent.learning.transitions import Transitions

MAX_ROLLOUTS = 2_000  # held-out rollouts that the errors are measured on


class DynamicsTraining(Training):
    """Trains the models by the smooth L1 loss of standardized changes, rewards and costs.

    What is an event has a cross-entropy: the episode's end, and a cost that is either 0 or always
    the same. The model's scales become those of the data.

    Args:
        networks: The models.
        transitions: The data.
        rows: Indices of the transitions to train on.
        batch_size: Transitions per member.
    """

    def __init__(
        self, networks: DynamicsEnsemble, transitions: Transitions, rows: Tensor, batch_size: int
    ):
        super().__init__(networks)
        self.transitions, self.rows, self.batch_size = transitions, rows, batch_size
        data = transitions.all
        self._event_cost = event_cost(data.costs)
        self._terminates = bool((data.continues == 0.0).any())
        self._targets = torch.cat(
            [data.next_obs - data.obs, data.rewards[:, None], data.costs[:, None]], dim=1
        )
        observations = torch.cat([data.obs, data.next_obs])
        networks.target_shift.copy_(self._targets.mean(dim=0))
        networks.target_scale.copy_(self._targets.std(dim=0).clamp_min(1e-6))
        networks.obs_low.copy_(observations.amin(dim=0))
        networks.obs_high.copy_(observations.amax(dim=0))
        networks.terminates.fill_(self._terminates)
        networks.event_cost.fill_(self._event_cost)
        networks.cost_low.copy_(data.costs.min().clamp(max=0.0))

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the losses of one random batch for each member."""
        dynamics, data = self.networks, self.transitions.all
        shape, device = (dynamics.num_members, self.batch_size), generator.device
        drawn = torch.randint(len(self.rows), shape, generator=generator, device=device)
        rows = self.rows[drawn]
        raw = dynamics(data.obs[rows], data.actions[rows])
        targets = (self._targets[rows] - dynamics.target_shift) / dynamics.target_scale
        events = {}
        if self._event_cost > 0:
            events["cost event"] = raw[..., -2], (data.costs[rows] > 0).float()
            targets[..., -1] = raw[..., -2].detach()  # the event has a loss of its own
        if self._terminates:
            events["termination"] = raw[..., -1], 1.0 - data.continues[rows]
        losses = {"model": functional.smooth_l1_loss(raw[..., :-1], targets, beta=0.1)}
        for name, pair in events.items():
            losses[name] = functional.binary_cross_entropy_with_logits(*pair)
        return losses


def event_cost(costs: Tensor) -> float:
    """Returns the cost of an event if all costs are 0 or one positive value, else 0."""
    largest = costs.max()
    return float(largest) if ((costs == 0.0) | (costs == largest)).all() and largest > 0 else 0.0


@torch.no_grad()
def unexplained_shares(
    dynamics: DynamicsEnsemble, transitions: Transitions, rows: Tensor, horizon: int
) -> dict[str, list[float]]:
    """Measures how wrong open-loop rollouts are after 1, 2, ... steps of the logged actions.

    Args:
        dynamics: The models.
        transitions: The data.
        rows: Indices of transitions that the models were not trained on.
        horizon: Longest rollout.

    Returns:
        For the observation, and for the return and the cost so far, the squared error as a share
        of the variance, one number per step; nothing where no episode is long enough.
    """
    starts = _starts(transitions, rows, horizon)
    if len(starts) == 0:
        return {"observation": [], "return": [], "cost": []}
    rollout, steps = _replay(dynamics, transitions, starts, horizon)
    truth = {
        "observation": (rollout.observations, transitions.all.next_obs[steps]),
        "return": (rollout.returns, transitions.all.rewards[steps].cumsum(dim=1)),
        "cost": (rollout.costs, transitions.all.costs[steps].cumsum(dim=1)),
    }
    return {name: _share(*pair).tolist() for name, pair in truth.items()}


@torch.no_grad()
def unexplained_elsewhere(
    dynamics: DynamicsEnsemble,
    transitions: Transitions,
    rows: Tensor,
    shares: dict[str, list[float]],
    generator: torch.Generator,
) -> dict[str, list[float]]:
    """Estimates how wrong the models are of plans that nobody recorded.

    From the states of some windows go the actions of others. What is unexplained of a window's own
    actions is multiplied by how much more the members of the ensemble disagree on those.

    Args:
        dynamics: The models.
        transitions: The data.
        rows: Indices of transitions that the models were not trained on.
        shares: What `unexplained_shares` gave for those.
        generator: Says which actions go with which states.
    """
    horizon = len(shares["observation"])
    if horizon == 0:
        return shares
    starts = _starts(transitions, rows, horizon)
    order = torch.randperm(len(starts), generator=generator, device=starts.device)
    obs, steps = transitions.all.obs[starts], torch.arange(horizon, device=starts.device)
    actions = transitions.all.actions[starts[:, None] + steps]
    own, others = (_disagreement(dynamics, obs, plans) for plans in (actions, actions[order]))
    factors = (others / own.clamp_min(1e-12)).clamp_min(1.0).tolist()
    return {
        name: [share * factor for share, factor in zip(values, factors)]
        for name, values in shares.items()
    }


def _disagreement(dynamics: DynamicsEnsemble, obs: Tensor, actions: Tensor) -> Tensor:
    """Returns the variance of the observation over the members after each step, `(H,)`."""
    num = len(obs)
    members = torch.arange(dynamics.num_members, device=obs.device).repeat_interleave(num)
    obs = obs.repeat(dynamics.num_members, 1)
    variances = []
    for t in range(actions.shape[1]):
        obs = dynamics.step(obs, actions[:, t].repeat(dynamics.num_members, 1), members).observation
        variances.append(obs.view(-1, num, obs.shape[1]).var(dim=0, unbiased=False).mean())
    return torch.stack(variances)


@torch.no_grad()
def underestimated_costs(
    dynamics: DynamicsEnsemble, transitions: Transitions, rows: Tensor, cost_discount: float
) -> Tensor:
    """Returns cost less predicted cost of windows of `dynamics.trusted_steps` that do not overlap.

    Args:
        dynamics: The models.
        transitions: The data.
        rows: Indices of transitions that the models were not trained on.
        cost_discount: gamma_c.

    Returns:
        `(m,)`, one score per window, in units of its first step.
    """
    horizon = int(dynamics.trusted_steps)
    first = transitions.steps_left(rows) % horizon == 0
    rollout, steps = _replay(dynamics, transitions, rows[first], horizon, cost_discount)
    decay = cost_discount ** torch.arange(horizon, device=rows.device)
    return (decay * transitions.all.costs[steps]).sum(dim=1) - rollout.costs[:, -1]


def trusted_steps(shares: dict[str, list[float]], tolerance: float) -> int:
    """Returns for how many steps rollouts are good enough; at least 1.

    That is as long as the unexplained share of the observation stays within the tolerance, and that
    of return and cost within it or within what one step leaves unexplained: a cost of 0 or 1 is not
    predicted well at its border, but no worse for being summed up over more steps.

    Args:
        shares: What `unexplained_shares` gave.
        tolerance: A share.
    """
    limits = {name: max([tolerance, *values[:1]]) for name, values in shares.items()}
    limits["observation"] = tolerance
    steps = zip(*([share <= limits[name] for share in of] for name, of in shares.items()))
    good = [all(of_step) for of_step in steps]
    return max(1, good.index(False) if False in good else len(good))


def _starts(transitions: Transitions, rows: Tensor, horizon: int) -> Tensor:
    """Returns those of the rows that so many steps follow, some `MAX_ROLLOUTS` of them."""
    starts = rows[transitions.steps_left(rows) >= horizon]
    return starts[:: max(1, len(starts) // MAX_ROLLOUTS)]


def _replay(
    dynamics: DynamicsEnsemble,
    transitions: Transitions,
    starts: Tensor,
    horizon: int,
    cost_discount: float = 1.0,
) -> tuple[ModelRollout, Tensor]:
    """Returns what the models make of the logged actions, and the rows of those, `(N, horizon)`."""
    steps = starts[:, None] + torch.arange(horizon, device=starts.device)
    actions = transitions.all.actions[steps]
    rollout = imagine(
        dynamics,
        transitions.all.obs[starts],
        lambda _, t: actions[:, t],
        horizon,
        discount=1.0,
        cost_discount=cost_discount,
    )
    return rollout, steps


def _share(predicted: Tensor, true: Tensor) -> Tensor:
    """Returns the unexplained share of the variance after each step, `(H,)`; of `(N, H, ...)`."""
    error, variance = (predicted - true) ** 2, (true - true.mean(dim=0)) ** 2
    over = [dim for dim in range(error.dim()) if dim != 1]
    return error.mean(dim=over) / variance.mean(dim=over).clamp_min(1e-9)
