"""Trains the one-step models, and finds out for how many steps they can be believed."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Piece, roll_out
from safe_diffusion_agent.learning.transitions import Pieces

MAX_ROLLOUTS = 2_000  # held-out rollouts that the errors are measured on


class DynamicsLoss:
    """Smooth L1 loss of standardised changes, rewards and costs; cross-entropy of what is an event.

    The episode's end is an event, and a cost that is either 0 or always the same.

    Args:
        pieces: The data.
        rows: Indices of the transitions to train on.
        batch_size: Transitions per member.
    """

    def __init__(self, pieces: Pieces, rows: Tensor, batch_size: int):
        self.pieces, self.rows, self.batch_size = pieces, rows, batch_size
        self._event_cost = event_cost(pieces.costs)
        self._terminates = bool(pieces.terminated.any())
        self._targets = torch.cat(
            [pieces.next_obs - pieces.obs, pieces.rewards[:, None], pieces.costs[:, None]], dim=1
        )

    def standardize(self, dynamics: DynamicsEnsemble) -> None:
        """Sets the model's scales to those of the data."""
        targets, observations = self._targets, torch.cat([self.pieces.obs, self.pieces.next_obs])
        dynamics.target_shift.copy_(targets.mean(dim=0))
        dynamics.target_scale.copy_(targets.std(dim=0).clamp_min(1e-6))
        dynamics.obs_low.copy_(observations.amin(dim=0))
        dynamics.obs_high.copy_(observations.amax(dim=0))
        dynamics.terminates.fill_(self._terminates)
        dynamics.event_cost.fill_(self._event_cost)

    def __call__(
        self, dynamics: nn.Module, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one random batch for each member."""
        assert isinstance(dynamics, DynamicsEnsemble)
        shape = (dynamics.num_members, self.batch_size)
        device = generator.device
        drawn = torch.randint(len(self.rows), shape, generator=generator, device=device)
        rows = self.rows[drawn]
        raw = dynamics(self.pieces.obs[rows], self.pieces.actions[rows])
        targets = (self._targets[rows] - dynamics.target_shift) / dynamics.target_scale
        events = {}
        if self._event_cost > 0:
            events["cost event"] = raw[..., -2], (self.pieces.costs[rows] > 0).float()
            targets[..., -1] = raw[..., -2].detach()  # the event has a loss of its own
        if self._terminates:
            events["termination"] = raw[..., -1], self.pieces.terminated[rows]
        parts = {"model": functional.smooth_l1_loss(raw[..., :-1], targets, beta=0.1)}
        for name, pair in events.items():
            parts[name] = functional.binary_cross_entropy_with_logits(*pair)
        return sum(parts.values(), raw.new_zeros(())), {k: v.detach() for k, v in parts.items()}


def event_cost(costs: Tensor) -> float:
    """What the event costs, where every cost is 0 or that; else 0."""
    largest = costs.max()
    return float(largest) if ((costs == 0.0) | (costs == largest)).all() else 0.0


@torch.no_grad()
def unexplained_shares(
    dynamics: DynamicsEnsemble, pieces: Pieces, rows: Tensor, horizon: int
) -> dict[str, list[float]]:
    """How wrong open-loop rollouts are after 1, 2, ... steps of the logged actions.

    Args:
        dynamics: The models.
        pieces: The data.
        rows: Indices of transitions that the models were not trained on.
        horizon: Longest rollout.

    Returns:
        For the observation, and for the return and the cost so far, the squared error as a share
        of the variance, one number per step; nothing where no episode is long enough.
    """
    starts = rows[pieces.steps_left(rows) >= horizon]
    starts = starts[:: max(1, len(starts) // MAX_ROLLOUTS)]
    if len(starts) == 0:
        return {"observation": [], "return": [], "cost": []}
    piece, steps = _replay(dynamics, pieces, starts, horizon)
    truth = {
        "observation": (piece.observations, pieces.next_obs[steps]),
        "return": (piece.returns, pieces.rewards[steps].cumsum(dim=1)),
        "cost": (piece.costs, pieces.costs[steps].cumsum(dim=1)),
    }
    return {name: _share(*pair).tolist() for name, pair in truth.items()}


@torch.no_grad()
def underestimated_costs(dynamics: DynamicsEnsemble, pieces: Pieces, rows: Tensor) -> Tensor:
    """Cost less predicted cost of windows of `dynamics.trusted_steps` that do not overlap.

    Args:
        dynamics: The models.
        pieces: The data.
        rows: Indices of transitions that the models were not trained on.

    Returns:
        `(m,)`, one score per window.
    """
    horizon = int(dynamics.trusted_steps)
    first = pieces.steps_left(rows) % horizon == 0
    piece, steps = _replay(dynamics, pieces, rows[first], horizon)
    return pieces.costs[steps].sum(dim=1) - piece.costs[:, -1]


def trusted_steps(shares: dict[str, list[float]], tolerance: float) -> int:
    """For how many steps rollouts are good enough; at least 1.

    That is as long as the unexplained share of the observation stays within the tolerance, and that
    of return and cost within it or within what one step leaves unexplained: a cost of 0 or 1 is not
    predicted well at its border, but no worse for being summed up over more steps.

    Args:
        shares: See `unexplained_shares`.
        tolerance: A share.
    """
    limits = {name: max([tolerance, *values[:1]]) for name, values in shares.items()}
    limits["observation"] = tolerance
    steps = zip(*([share <= limits[name] for share in of] for name, of in shares.items()))
    good = [all(of_step) for of_step in steps]
    return max(1, good.index(False) if False in good else len(good))


def _replay(
    dynamics: DynamicsEnsemble, pieces: Pieces, starts: Tensor, horizon: int
) -> tuple[Piece, Tensor]:
    """What the models make of the logged actions, and the rows of those, `(N, horizon)`."""
    steps = starts[:, None] + torch.arange(horizon, device=starts.device)
    actions = pieces.actions[steps]
    piece = roll_out(
        dynamics,
        pieces.obs[starts],
        lambda _, t: actions[:, t],
        horizon,
        discount=1.0,
        cost_discount=1.0,
    )
    return piece, steps


def _share(predicted: Tensor, true: Tensor) -> Tensor:
    """Unexplained share of the variance after each step, `(H,)`, for `(N, H)` or `(N, H, O)`."""
    error, variance = (predicted - true) ** 2, (true - true.mean(dim=0)) ** 2
    over = [dim for dim in range(error.dim()) if dim != 1]
    return error.mean(dim=over) / variance.mean(dim=over).clamp_min(1e-9)
