"""Compiled and recorded plans give the numbers of the plain ones, and wait for nothing."""

import shutil

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.compute import MAX_RECORDS, Recorded, executable
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.agent import judge_of, planner_of
from safe_diffusion_agent.methods.trebi.diffusion import NoiseSchedule, Normalizer
from safe_diffusion_agent.methods.trebi.plan import Choice
from safe_diffusion_agent.settings import change

TASK = Task(
    env_id=None, obs_dim=3, act_dim=1, action_low=(-1.0,), action_high=(1.0,),
    max_episode_steps=50, cost_discount=1.0, max_budget=1.0, dataset_id="random",
    dataset_fingerprint="",
)  # fmt: skip
HORIZON = 8
UNET = {"base_width": 16, "width_mults": (1, 2), "diffusion_steps": 3}
PRESETS = ["paper", "reference", "quick", "frontier", "realtime"]
# Importing PyTorch's compiler warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)


def small_planner(preset, device="cpu", **settings):
    """A small planner with random weights that differ from state to state."""
    config = METHODS["trebi"].config(preset, risk=None, **{"horizon": HORIZON, **settings})
    config = change(config, {"num_candidates": min(config.planner.num_candidates, 5)})
    if config.model.network == "unet":
        config = change(config, UNET)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = judge_of(config).networks_class(config.model, TASK)
        networks = networks.eval().requires_grad_(False)
    if config.model.judge == "frontier":
        networks.dynamics.trusted_steps.fill_(5)
    schedule = NoiseSchedule.cosine(config.model.diffusion_steps, device)
    one = torch.ones(4)
    normalizer = Normalizer(0 * one, one, -3 * one, 3 * one)
    return planner_of(networks.to(device), schedule, normalizer.to(device), config, TASK)


def as_if_recorded(planner):
    """The planner whose plan can be recorded: it does not look whether anyone is over budget."""
    planner.judge.config = change(planner.config, {"execution": "recorded"})
    return planner


def arguments_of(planner, num, seed):
    """States, budgets on both sides of what plans cost, and noise."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(num, 3, generator=generator)
    budget = torch.randn(num, generator=generator)
    steps = torch.randint(1, 50, (num,), generator=generator).float()
    num_drawn = num * planner.config.planner.num_candidates
    noise = planner.judge.sampler.draw_noise(num_drawn, generator)
    return obs, budget, steps, noise


def record_trace(function, arguments, generator):
    """Like a CUDA graph: the operations of one call, with everything but the arguments fixed."""
    assert generator is None
    program = make_fx(lambda *inputs: function(*inputs))(*arguments)
    targets = [str(node.target) for node in program.graph.nodes]
    assert not [name for name in targets if "lift_fresh" in name or "_local_scalar" in name]
    results = function(*arguments)

    def replay():
        for result, new in zip(results, program(*arguments), strict=True):
            result.copy_(new)

    return replay, results


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recorded_plan_is_the_plain_one_for_other_states_budgets_and_noise(preset):
    eager = small_planner(preset)
    recorded = Recorded(as_if_recorded(small_planner(preset)).plan, record_trace)
    with torch.no_grad():
        recorded(*arguments_of(eager, 2, seed=0))
        for seed in (1, 2):
            arguments = arguments_of(eager, 2, seed)
            plain, replayed = eager.plan(*arguments), recorded(*arguments)
            for name in Choice._fields:
                torch.testing.assert_close(getattr(replayed, name), getattr(plain, name))
    assert len(recorded._records) == 1


def test_results_of_a_replay_are_not_overwritten_by_the_next():
    planner = small_planner("realtime")
    recorded = Recorded(planner.plan, record_trace)
    with torch.no_grad():
        first = recorded(*arguments_of(planner, 2, seed=0))
        kept = first.returns.clone()
        recorded(*arguments_of(planner, 2, seed=1))
    torch.testing.assert_close(first.returns, kept, rtol=0, atol=0)


def test_every_shape_has_a_recording_and_the_oldest_ones_are_dropped():
    shapes = []

    def record(function, arguments, generator):
        shapes.append(arguments[0].shape)
        return lambda: None, function(*arguments)

    recorded = Recorded(lambda x: Choice(x, x, x, x, x), record)
    for num in (1, 2, 1, *range(1, MAX_RECORDS + 2), 1):
        recorded(torch.zeros(num))
    assert [shape[0] for shape in shapes] == [1, 2, *range(3, MAX_RECORDS + 2), 1]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_is_made_without_any_value(preset):
    """On tensors that have a shape and a device, but no values and no way to copy from the CPU."""
    planner = as_if_recorded(small_planner(preset))
    arguments = arguments_of(planner, 2, seed=0)
    sampler = planner.judge.sampler
    rows = sampler._sampling_schedule.rows
    rows[:] = [(step.to("meta"), *numbers) for step, *numbers in rows]
    sampler.networks.to("meta")
    sampler.normalizer = sampler.normalizer.to("meta")
    with torch.no_grad():
        choice = planner.plan(*(argument.to("meta") for argument in arguments))
    assert choice.trajectories.shape == (2, planner.judge.num_candidates, HORIZON, 4)
    assert {tensor.device.type for tensor in choice} == {"meta"}


def assert_plans_alike(compiled, eager, num, seed=0):
    arguments = arguments_of(eager, num, seed)
    with torch.no_grad():
        fast, plain = compiled._execute(*arguments), eager.plan(*arguments)
    for name in Choice._fields:
        torch.testing.assert_close(
            getattr(fast, name), getattr(plain, name), rtol=1e-4, atol=1e-5, msg=name
        )


@needs_compiler
def test_a_compiled_guided_plan_is_the_plain_one():
    small = {"horizon": 2, "diffusion_steps": 2}
    compiled = small_planner("quick", execution="compiled", **small)
    assert_plans_alike(compiled, small_planner("quick", **small), num=3)


@needs_compiler
def test_compiled_plans_of_several_agents_are_their_own():
    """Agents of one process share the compiler's cache; what differs must not be mixed up."""
    for seed in range(3):
        planners = []
        for execution in ("compiled", "eager"):
            planner = small_planner(
                "realtime", execution=execution, horizon=2, discount=0.9 + 0.03 * seed
            )
            generator = torch.Generator().manual_seed(seed)
            sampler = planner.judge.sampler
            for weights in sampler.networks.parameters():
                weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
            sampler.networks.dynamics.trusted_steps.fill_(1 + seed % 2)
            sampler.normalizer.std.mul_(1.0 + seed)
            planners.append(planner)
        assert_plans_alike(*planners, num=1, seed=seed)
    for num in (3, 2):
        assert_plans_alike(*planners, num=num)


def test_how_an_agent_plans_is_chosen_when_it_is_loaded():
    with pytest.raises(ValueError, match="Did you mean 'compiled'"):
        TrebiAgent.load("pendulum", execution="compile")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'recorded' needs a CUDA device"):
            TrebiAgent.load("pendulum", execution="recorded")
        with pytest.raises(ValueError, match="U-Nets slower without a CUDA device"):
            small_planner("paper", execution="compiled")


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    def broken(*_, **__):
        def call(*_):
            raise InductorError(RuntimeError("No working C++ compiler"), None)

        return call

    from torch._inductor.exc import InductorError

    monkeypatch.setattr(torch, "compile", broken)
    plan = executable(lambda x: x, "compiled", torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"Install a C\+\+ compiler .* execution='eager'"):
        plan(torch.zeros(1))


@pytest.mark.cuda
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("execution", ["recorded", "compiled"])
def test_a_gpu_replays_the_plain_plan(preset, execution):
    eager = small_planner(preset, device="cuda")
    fast = small_planner(preset, device="cuda", execution=execution)
    with torch.no_grad():
        for seed in range(3):
            arguments = [argument.cuda() for argument in arguments_of(eager, 2, seed)]
            plain, replayed = eager.plan(*arguments), fast._execute(*arguments)
            np.testing.assert_allclose(
                replayed.costs.cpu(), plain.costs.cpu(), rtol=1e-2, atol=1e-2
            )
