"""Settings of TREBI: what the networks are, how they are trained, how a trained agent plans.

The defaults are the paper's (Lin et al. 2023, Alg. 1, Eq. 16, App. D); what its text leaves open is
taken from Diffuser, on which it says it is based. Attributes marked "Improvement" are ours, and off
by default.
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar, Literal

from safe_diffusion_agent.settings import check, check_choices, check_positive, check_shares, only

# Settings that the other judge, or the other network, does not read.
_values, _frontier = partial(only, judge="values"), partial(only, judge="frontier")
_unet, _mlp = partial(only, network="unet"), partial(only, network="mlp")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the networks are, and what they predict. Fixed by training.

    Attributes:
        network: `"unet"`: Diffuser's temporal U-Net and its encoder half. `"mlp"`: small networks.
        horizon: H, steps of a planned trajectory. Divisible by 2^(levels - 1) with `"unet"`.
        diffusion_steps: T.
        base_width: U-Net: channels of the first level.
        width_mults: U-Net: channel multiplier of each level.
        mlp_width: MLP: width of the denoiser's blocks.
        mlp_blocks: MLP: number of the denoiser's blocks.
        mlp_value_width: MLP: width of the value networks.
        discount: Discount of the return that the reward value predicts. None: that of the task's
            costs (App. D gives one gamma).
        cost_discount: gamma_c of the cost that the cost value predicts. None: the task's.
        time_to_go: Improvement: the value networks see how much of the episode is left.
        cost_quantiles: Improvement: quantiles that the cost value predicts beside the mean.
        standardize_values: Improvement: value targets are standardized for the loss.
        judge: What candidates are judged by. `"values"`: the two value networks of the paper.
            `"frontier"`: improvement: one-step models and the frontier critic.
        num_models: Frontier: members of the ensemble of one-step models.
        model_width: Frontier: width of their hidden layers.
        critic_width: Frontier: width of the critic's hidden layers.
        actor_spread: Frontier: whether the critic's actor learns how much its actions vary.
    """

    network: Literal["unet", "mlp"] = "unet"
    horizon: int = 32
    diffusion_steps: int = 20
    base_width: int = _unet(32)
    width_mults: tuple[int, ...] = _unet((1, 2, 4, 8))
    mlp_width: int = _mlp(256)
    mlp_blocks: int = _mlp(2)
    mlp_value_width: int = only(128, network="mlp", judge="values")
    discount: float | None = None
    cost_discount: float | None = None
    time_to_go: bool = _values(False)
    cost_quantiles: tuple[float, ...] = _values(())
    standardize_values: bool = _values(False)
    judge: Literal["values", "frontier"] = "values"
    num_models: int = _frontier(3)
    model_width: int = _frontier(96)
    critic_width: int = _frontier(192)
    actor_spread: bool = _frontier(False)

    def __post_init__(self) -> None:
        check_choices(self)
        check(self.horizon >= 2, "horizon should be at least 2", self.horizon)
        check(self.diffusion_steps >= 1, "diffusion_steps should be positive", self.diffusion_steps)
        divisor = 2 ** (len(self.width_mults) - 1)
        check(
            self.network == "mlp" or self.horizon % divisor == 0,
            f"horizon should be divisible by {divisor} (2 to the number of U-Net levels minus 1)",
            self.horizon,
        )
        widths = [self.base_width * mult for mult in self.width_mults]
        check(
            all(width % 8 == 0 for width in (*widths, widths[-1] // 4)) and widths[-1] % 4 == 0,
            "every level's width, and a quarter of the last one, should be divisible by 8",
            widths,
        )
        for name in ("discount", "cost_discount"):
            value = getattr(self, name)
            check(value is None or 0.0 < value <= 1.0, f"{name} should be in (0, 1]", value)
        for quantile in self.cost_quantiles:
            check(0.0 < quantile < 1.0, "cost_quantiles should be in (0, 1)", quantile)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the networks are trained.

    Attributes:
        num_steps: Optimizer steps; all three networks take one each.
        batch_size: Trajectories per gradient: 64 at once for Diffuser's two accumulated halves.
        accumulate: Gradients summed per optimizer step.
        learning_rate: Of Adam.
        value_learning_rate: Of the value networks. None: the same.
        value_steps: The value networks are trained in the first steps alone, so many. None: in all.
        decay_from: Share of the training after which the learning rate falls linearly to zero;
            1 keeps it constant.
        ema_decay: Decay of the average of the weights, which is what plans.
        ema_interval: Optimizer steps between two updates of the average.
        ema_start: Until this step the average is a copy of the weights.
        first_action_weight: Weight of the first action in the denoising loss, 1 for all else.
        windows: `"inside"`: training trajectories start where all of them fits below the time
            limit, as in Diffuser, so that the last H - 1 steps of a full-length episode never start
            one. `"all"`: improvement: they start everywhere, and what lies beyond the time limit is
            masked.
        clean_share: Improvement: share of the value networks' trajectories without noise.
        calibration_share: Improvement: share of the episodes that the networks are not trained on
            and that the margin for `PlannerConfig.risk` is taken from, with `judge="values"`. With
            0, as in the paper, such an agent is not calibrated.
        recorded_training: On a GPU: what computes the gradients of denoiser and values is recorded
            once as a CUDA graph, and replayed in every step.
        termination_penalty: Added to the last cost, and subtracted from the last reward, of
            episodes that terminate. The reference code has 100 on MuJoCo.
    """

    num_steps: int = 1_000_000
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 2e-4
    value_learning_rate: float | None = _values(None)
    value_steps: int | None = _values(None)
    decay_from: float = 1.0
    ema_decay: float = 0.995
    ema_interval: int = 10
    ema_start: int = 2_000
    first_action_weight: float = 10.0
    windows: Literal["inside", "all"] = "inside"
    clean_share: float = _values(0.0)
    calibration_share: float = _values(0.0)
    recorded_training: bool = False
    termination_penalty: float = _values(0.0)

    def __post_init__(self) -> None:
        check_choices(self)
        of_values = ("value_learning_rate", "value_steps")
        given = [name for name in of_values if getattr(self, name) is not None]
        numbers = "num_steps", "batch_size", "accumulate", "ema_interval", "learning_rate"
        check_positive(self, (*numbers, *given))
        check_shares(self, ("decay_from", "clean_share", "ema_decay", "calibration_share"))


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """How a trained agent plans. Can be changed when an agent is loaded.

    Attributes:
        num_candidates: K, trajectories sampled per state. Frontier: may be 0 with `critic_plans`.
        guidance_scale: alpha of Eq. 16.
        penalty: n of Eq. 14 and 16.
        penalty_ramp: Multiplies n by exp(min((C - z) / z, 1)), as the reference code may.
        guidance_on: Where the gradient is added: to the `"mean"` of the next one (the paper),
            or to the `"input"` of the denoiser (the reference code).
        guidance_repeats: Gradients per denoising step.
        num_unguided_steps: Last denoising steps, which take no guidance.
        sampling_steps: Improvement: steps that undo the noise, spread evenly. None: T.
        precision: Improvement: of denoising and guidance; candidates are judged in float32.
        execution: Improvement: how a plan is computed. `"eager"`: one operation
            after the other. `"compiled"`: as machine code, which the first plan makes (it takes
            tens of seconds, and a C++ compiler). On a GPU it is then recorded, too; U-Nets are
            compiled there alone. `"recorded"`: eager, but recorded on a GPU.
        score: Which trajectories the candidates are judged by: the `"final"` ones, or the
            `"noised"` ones before the last denoising, as in the reference code.
        cost_quantile: Improvement: the quantile that stands for the cost everywhere in the planner;
            one of the model's `cost_quantiles`. None: the mean.
        budget_margin: Improvement: share of the task's maximum budget that the planner holds back.
        clip: Improvement: predicted clean trajectories are clipped to the action space and to the
            range of the observations in the data. Executed actions always are to the action space.
        critic_plans: Frontier: whether the critic's own plans are among the candidates.
        idle_plan: Frontier: whether to do nothing, action 0, is among the candidates.
        bound: Frontier: how the rest of the budget is valued: by the Lagrangian `"dual"`, or by the
            best `"single"` behavior that fits.
        risk: Improvement: share of the episodes that may exceed the budget, as far as the
            calibration tells; a margin is held back for it. None: none.
        budget_scale: What an evaluation multiplies budgets by at the start of an episode, when the
            planner's gamma_c is not the task's. The reference code does so on Pendulum and Reacher.
    """

    num_candidates: int = 64
    guidance_scale: float = _values(0.1)
    penalty: float = _values(1000.0)
    penalty_ramp: bool = _values(False)
    guidance_on: Literal["mean", "input"] = _values("mean")
    guidance_repeats: int = _values(1)
    num_unguided_steps: int = _values(0)
    sampling_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    execution: Literal["eager", "compiled", "recorded"] = "eager"
    score: Literal["final", "noised"] = _values("final")
    cost_quantile: float | None = _values(None)
    budget_margin: float = 0.0
    clip: bool = False
    critic_plans: bool = _frontier(True)
    idle_plan: bool = _frontier(False)
    bound: Literal["dual", "single"] = _frontier("dual")
    risk: float | None = None
    budget_scale: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self)
        check(self.risk is None or 0.0 < self.risk < 1.0, "risk should be in (0, 1)", self.risk)
        check(self.guidance_repeats >= 1, "guidance_repeats should be >= 1", self.guidance_repeats)
        named = "num_candidates", "guidance_scale", "penalty", "num_unguided_steps", "budget_margin"
        for name in named:
            check(getattr(self, name) >= 0, f"{name} should be >= 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class FrontierConfig:
    """How the one-step models and the frontier critic are trained; with `judge="frontier"` alone.

    Attributes:
        model_steps: Optimizer steps of the one-step models.
        model_batch_size: Transitions per member and gradient.
        model_learning_rate: Of Adam; falls linearly to zero.
        held_out_share: Share of the episodes that the models do not see, on which they are judged.
        model_tolerance: Plans are rolled out for as many steps as the models explain all but this
            share of the variance on the held-out episodes; the critic stands for the rest.
        critic_steps: Optimizer steps of the critic.
        critic_batch_size: States per gradient, half of them real and half imagined.
        critic_learning_rate: Of Adam; constant for one half, then falls linearly to zero.
        target_rate: How far the target network moves towards the critic in a step.
        real_steps: Longest real piece.
        real_expectile: Expectile for real pieces, beside branches.
        branch_expectile: Expectile for the best of a state's branches.
        branch_share: Share of imagined branches in a batch.
        min_branch_steps: Models that are trusted for fewer steps imagine no branches, and no whole
            episodes: the critic learns from the recorded ones alone, by imitation.
        max_margin: Share of the maximum budget. A critic that learned from branches and needs a
            larger margin makes use of the models' errors; one that learned from the recorded
            episodes alone takes its place if its margin is smaller.
        imitation_steps: Optimizer steps of a critic that learns by imitation.
        num_branches: States that branches are imagined from at a time.
        num_diffusion_branches: Branches per state that the diffusion model proposes.
        branch_interval: Steps after which new branches are imagined.
        calibration_episodes: Imagined episodes for the margin of `PlannerConfig.risk`; 0 leaves the
            agent without calibration.
    """

    retired: ClassVar[tuple[str, ...]] = ("alone_expectile",)  # of critics that do not imitate

    model_steps: int = _frontier(4_000)
    model_batch_size: int = _frontier(256)
    model_learning_rate: float = _frontier(2e-3)
    held_out_share: float = _frontier(0.2)
    model_tolerance: float = _frontier(0.1)
    critic_steps: int = _frontier(20_000)
    critic_batch_size: int = _frontier(512)
    critic_learning_rate: float = _frontier(1e-3)
    target_rate: float = _frontier(0.005)
    real_steps: int = _frontier(8)
    real_expectile: float = _frontier(0.9)
    branch_expectile: float = _frontier(0.6)
    branch_share: float = _frontier(0.5)
    min_branch_steps: int = _frontier(8)
    max_margin: float = _frontier(0.5)
    imitation_steps: int = _frontier(30_000)
    num_branches: int = _frontier(10_000)
    num_diffusion_branches: int = _frontier(2)
    branch_interval: int = _frontier(2_500)
    calibration_episodes: int = _frontier(60)

    def __post_init__(self) -> None:
        shares = "target_rate", "branch_share", "real_expectile", "branch_expectile"
        check_shares(self, ("held_out_share", *shares))
        positive = {field.name for field in fields(self)}
        positive -= {"branch_share", "num_diffusion_branches", "calibration_episodes"}
        check_positive(self, sorted(positive))

    def imagines(self, trusted_steps: int) -> bool:
        """Returns whether models trusted for so many steps give the critic branches."""
        return self.branch_share > 0.0 and trusted_steps >= self.min_branch_steps


@dataclass(frozen=True, kw_only=True)
class TrebiConfig:
    """All settings of one agent, in four groups whose names do not overlap."""

    preset: str
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    frontier: FrontierConfig = FrontierConfig()
    planner: PlannerConfig = PlannerConfig()

    def __post_init__(self) -> None:
        planner, model = self.planner, self.model
        check(
            planner.cost_quantile is None or planner.cost_quantile in model.cost_quantiles,
            f"cost_quantile should be None or one of {model.cost_quantiles}",
            planner.cost_quantile,
        )
        num_steps = planner.sampling_steps
        fits = num_steps is None or 1 <= num_steps <= model.diffusion_steps
        check(fits, f"sampling_steps should be in 1 to {model.diffusion_steps}", num_steps)
        all_steps = num_steps in (None, model.diffusion_steps)
        final = all_steps or planner.score == "final"
        check(final, 'with fewer sampling_steps score should be "final"', planner.score)
