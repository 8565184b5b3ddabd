"""Settings of what the frontier is learned with."""

from dataclasses import dataclass, fields

from safe_diffusion_agent.settings import check_positive, check_shares


@dataclass(frozen=True, kw_only=True)
class FrontierConfig:
    """How the one-step models and the frontier critic are trained, see `frontier_fit`.

    Attributes:
        model_steps: Optimiser steps of the one-step models.
        model_batch_size: Transitions per member and gradient.
        model_learning_rate: Of Adam; falls linearly to zero.
        held_out_share: Share of the episodes that the models do not see, on which they are judged.
        model_tolerance: Plans are rolled out for as many steps as the models explain all but this
            share of the variance on the held-out episodes; the critic stands for the rest.
        critic_steps: Optimiser steps of the critic.
        critic_batch_size: States per gradient, half of them real and half imagined.
        critic_learning_rate: Of Adam; constant for one half, then falls linearly to zero.
        target_rate: How far the target network moves towards the critic in a step.
        real_steps: Longest real piece.
        real_expectile: Expectile for real pieces, beside branches.
        alone_expectile: The same where there are no branches to correct what is too hopeful.
        branch_expectile: Expectile for the best of a state's branches.
        branch_share: Share of imagined branches in a batch.
        min_branch_steps: Models that are trusted for fewer steps imagine no branches, and no whole
            episodes: the critic learns from the recorded ones alone.
        max_margin: Share of the maximum budget. A critic that learned from branches and needs a
            larger margin makes use of the models' errors; one that learned from the recorded
            episodes alone takes its place if its margin is smaller, see `fit_frontier`.
        num_branches: States that branches are imagined from at a time.
        num_diffusion_branches: Branches per state that the diffusion model proposes.
        branch_interval: Steps after which new branches are imagined.
        calibration_episodes: Imagined episodes for the margin of `PlannerConfig.risk`; 0 leaves the
            agent without calibration.
    """

    model_steps: int = 4_000
    model_batch_size: int = 256
    model_learning_rate: float = 2e-3
    held_out_share: float = 0.2
    model_tolerance: float = 0.1
    critic_steps: int = 20_000
    critic_batch_size: int = 512
    critic_learning_rate: float = 1e-3
    target_rate: float = 0.005
    real_steps: int = 8
    real_expectile: float = 0.9
    alone_expectile: float = 0.6
    branch_expectile: float = 0.6
    branch_share: float = 0.5
    min_branch_steps: int = 8
    max_margin: float = 0.5
    num_branches: int = 10_000
    num_diffusion_branches: int = 2
    branch_interval: int = 2_500
    calibration_episodes: int = 60

    def __post_init__(self) -> None:
        check_shares(
            self,
            (
                "held_out_share",
                "target_rate",
                "real_expectile",
                "alone_expectile",
                "branch_expectile",
                "branch_share",
            ),
        )
        positive = {field.name for field in fields(self)}
        positive -= {"branch_share", "num_diffusion_branches", "calibration_episodes"}
        check_positive(self, sorted(positive))

    def imagines(self, trusted_steps: int) -> bool:
        """Whether the critic learns from branches too, with models trusted for so many steps."""
        return self.branch_share > 0.0 and trusted_steps >= self.min_branch_steps
