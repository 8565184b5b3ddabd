"""What latency.py times: planners with random weights, and what the machine can do at best."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import PlainPlanner
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from safe_diffusion_agent.episodes import Episodes, Task
from safe_diffusion_agent.methods.table import METHODS, load_agent

SMALL = {"base_width": 32, "width_mults": (1, 2)}
SMALLER = {"horizon": 8, "diffusion_steps": 5}
# What a `frontier` agent is loaded with, to plan as the preset of that name.
FRONTIER: dict[str, dict[str, Any]] = {
    "frontier": {},
    "fast": {"sampling_steps": 5, "num_candidates": 4},
    "realtime": {"num_candidates": 0},
}
ONE_STEP = {
    "model_steps": 1, "critic_steps": 1, "imitation_steps": 1,
    "num_branches": 30, "calibration_episodes": 0,
}  # fmt: skip
EVERYBODY_OVER, NOBODY_OVER = -1e9, 1e9  # budgets; random networks predict costs around 0
MAX_STEPS, NUM_EPISODES = 200, 20


def _task(obs_dim: int, act_dim: int, env_id: str | None = None) -> Task:
    return Task(
        env_id=env_id, obs_dim=obs_dim, act_dim=act_dim, action_low=(-1.0,) * act_dim,
        action_high=(1.0,) * act_dim, max_episode_steps=MAX_STEPS, cost_discount=1.0,
        max_budget=1.0, dataset_id="random", dataset_fingerprint="",
    )  # fmt: skip


TASKS = {
    "HalfCheetah": _task(17, 6),
    "Pendulum": _task(3, 1, "safe/Pendulum-v0"),  # horizon 128 with the paper's networks
}


def random_episodes(task: Task) -> Episodes:
    """Noise of a task's dimensions."""
    rng, num = np.random.default_rng(0), NUM_EPISODES * MAX_STEPS
    return Episodes(
        observations=rng.normal(size=(num + NUM_EPISODES, task.obs_dim)).astype(np.float32),
        actions=rng.uniform(-1, 1, size=(num, task.act_dim)).astype(np.float32),
        rewards=rng.random(num), costs=rng.random(num),
        lengths=np.full(NUM_EPISODES, MAX_STEPS), terminated=np.zeros(NUM_EPISODES, np.bool_),
        action_low=np.full(task.act_dim, -1, np.float32),
        action_high=np.full(task.act_dim, 1, np.float32),
        dataset_id="random", env_id=task.env_id, max_episode_steps=MAX_STEPS,
        cost_discount=task.cost_discount, max_budget=task.max_budget, metadata={},
    )  # fmt: skip


def config_of(preset: str, task: Task, small: bool, **settings: Any) -> Any:
    """A preset; or, for a test, with tiny networks."""
    unet = preset in ("paper", "reference") and settings.get("network") != "mlp"
    smaller = (SMALL if unet else {}) | SMALLER if small else {}
    return METHODS["trebi"].config(preset, task.env_id, **smaller | settings)


class Counter(TorchDispatchMode):
    """Adds up floating point operations, by PyTorch's own formulas; replays are not seen."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result, formula = function(*args, **(kwargs or {})), function._overloadpacket
        if formula in flop_registry:
            self.total += flop_registry[formula](*args, **(kwargs or {}), out_val=result)
        return result


def gigaflop_of(call: Callable[[], Any]) -> float:
    with Counter() as counter:
        call()
    return counter.total / 1e9


@dataclass(frozen=True)
class Case:
    """One planner.

    Attributes:
        name: In the tables.
        agent: With random weights.
        compared_with: Name of the plain planner that does the same.
        budget: Whether the cost's gradient is needed depends on it.
        plain: Plans instead of the agent.
    """

    name: str
    agent: Any
    compared_with: str | None = None
    budget: float = EVERYBODY_OVER
    plain: PlainPlanner | None = None

    def act(self, batch: int) -> None:
        obs = np.zeros((batch, self.agent.task.obs_dim), np.float32)
        if self.plain is not None:
            self.plain.act(obs, self.budget)
        else:
            self.agent.act(obs, self.budget, MAX_STEPS)

    def gigaflop(self) -> float:
        """Of one plan."""
        with torch.compiler.set_stance("force_eager"):
            return gigaflop_of(lambda: self.act(1))

    def weight_bytes(self) -> float:
        return sum(4.0 * p.numel() for p in self.agent.networks.parameters())


def cases(task: Task, device: torch.device, small: bool) -> list[Case]:
    """All planners that are compared on one task."""
    with tempfile.TemporaryDirectory() as folder:
        return _cases(Path(folder), task, device, small)


def _cases(folder: Path, task: Task, device: torch.device, small: bool) -> list[Case]:
    def agent(name: str, **settings: Any) -> Any:
        preset = "frontier" if name in FRONTIER else name
        settings = FRONTIER.get(name, {}) | settings
        if not (folder / preset).exists():
            _save_random_agent(folder / preset, preset, task, small)
        return load_agent(folder / preset, device=device, **settings)

    result = []
    for preset in ("reference", "paper"):
        ours, theirs = (agent(preset, num_candidates=64) for _ in range(2))
        name = f"the plain way, settings of `{preset}`"
        result += [Case(name, theirs, plain=_plain(theirs)), Case(f"`{preset}`", ours, name)]
    same, few = result[-1].compared_with, 2 if small else 5
    result += [
        Case("`paper`, nobody over budget", agent("paper"), same, NOBODY_OVER),
        Case("`paper`, bfloat16", agent("paper", precision="bfloat16"), same),
        Case(f"`paper`, {few} sampling steps", agent("paper", sampling_steps=few), same),
    ]
    for name in ("quick", *FRONTIER):
        result.append(Case(f"`{name}`", agent(name), same))
        if not small or name == "realtime":  # compiling takes a while
            result.append(Case(f"`{name}`, compiled", agent(name, execution="compiled"), same))
    if device.type == "cpu":
        return result
    for name in ("paper", "frontier", "realtime"):
        result.append(Case(f"`{name}`, recorded", agent(name, execution="recorded"), same))
    for precision in ("float32", "bfloat16"):
        compiled = agent("paper", execution="compiled", precision=precision)
        result.append(Case(f"`paper`, compiled, {precision}", compiled, same))
    return result


def _save_random_agent(folder: Path, preset: str, task: Task, small: bool) -> None:
    """Trained for one step; what it is told is not scaled, and its models are trusted."""
    steps = {"num_steps": 1, "batch_size": 2, "risk": None}
    config = config_of(preset, task, small, **steps, **(ONE_STEP if preset == "frontier" else {}))
    agent: Any = METHODS["trebi"].fit(random_episodes(task), config, device="cpu")[0]
    if preset == "frontier":
        agent.networks.dynamics.trusted_steps.fill_(config.model.horizon)
    one = torch.ones(task.obs_dim + task.act_dim)
    unscaled = replace(agent.normalizer, mean=0 * one, std=one, low=-3 * one, high=3 * one)
    type(agent)(agent.networks, unscaled, config, task).save(folder)


def _plain(agent: Any) -> PlainPlanner:
    model, planner, task = agent.config.model, agent.config.planner, agent.task
    shape = (planner.num_candidates, model.horizon, task.obs_dim + task.act_dim)
    return PlainPlanner(
        agent.networks.requires_grad_(True), shape, task.act_dim, model.diffusion_steps,
        num_repeats=planner.guidance_repeats, num_thrown_away=planner.num_unguided_steps,
        scale=planner.guidance_scale, penalty=planner.penalty,
    )  # fmt: skip


@dataclass(frozen=True)
class Ceiling:
    """Something that the machine does as fast as it can: `amount` (giga) per call."""

    amount: float
    call: Callable[[], Any]


def ceilings(device: torch.device) -> dict[str, Ceiling]:
    """Floating point operations of products and convolutions, and bytes of copies."""
    a, b = torch.randn(1024, 1024, device=device), torch.randn(1024, 1024, device=device)
    # The convolution that most operations of the value networks are in.
    convolution = nn.Conv1d(256, 256, 5, padding=2, device=device).requires_grad_(False)
    x = torch.randn(64, 256, 4, device=device)
    source = torch.zeros(64 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "matrix product, GFLOP/s": Ceiling(2e-9 * 1024**3, lambda: a @ b),
        "convolution, GFLOP/s": Ceiling(
            gigaflop_of(lambda: convolution(x)), lambda: convolution(x)
        ),
        "copy, GB/s": Ceiling(2e-9 * source.numel(), lambda: target.copy_(source)),
    }


def fastest_arithmetic(reached: dict[str, float]) -> float:
    """GFLOP/s, the higher of the two rates."""
    return max(value for name, value in reached.items() if "GFLOP" in name)


def convolution_share(call: Callable[[], Any], device: torch.device) -> float:
    """Share of the CPU time inside PyTorch's convolutions, by its profiler; 0 on a GPU."""
    if device.type != "cpu":
        return 0.0
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    seconds = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    return sum(t for name, t in seconds.items() if "convolution" in name) / sum(seconds.values())


def floor_milliseconds(case: Case, gigaflop: float, reached: dict[str, float]) -> float:
    """What the operations take at the higher rate, or reading the weights once, if longer."""
    rate = fastest_arithmetic(reached)
    return 1e3 * max(gigaflop / rate, case.weight_bytes() / 1e9 / reached["copy, GB/s"])
