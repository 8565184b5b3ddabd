"""What benchmarks/latency.py times: planners with random weights, and what the machine can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from plain import PlainPlanner
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer
from safe_diffusion_agent.methods.trebi.networks import TrebiNetworks
from safe_diffusion_agent.methods.trebi.presets import preset_config

SMALL = {"base_width": 32, "width_mults": (1, 2), "horizon": 8, "diffusion_steps": 5}
EVERYBODY_OVER, NOBODY_OVER = -1e9, 1e9  # budgets; random networks predict costs around 0
MAX_STEPS = 200


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
    agent: TrebiAgent
    compared_with: str | None = None
    budget: float = EVERYBODY_OVER
    plain: PlainPlanner | None = None

    @property
    def one_at_a_time(self) -> bool:
        return self.plain is not None

    def act(self, batch: int) -> None:
        obs = np.zeros((batch, self.agent.task.obs_dim), np.float32)
        if self.plain is not None:
            self.plain.act(obs, self.budget)
        else:
            self.agent.act(obs, self.budget, MAX_STEPS)

    def gigaflop(self) -> float:
        """Of one plan: what the calls of the networks add up to, by PyTorch's counter."""
        return sum(num * _flops(network, inputs) for num, network, inputs in self._calls()) / 1e9

    def weight_bytes(self) -> float:
        return sum(4.0 * p.numel() for p in self.agent.networks.parameters())

    def guidance_bytes(self) -> float:
        """Per trajectory: what the backward pass of both values keeps, float32."""
        planner = self.agent.config.planner
        if self.agent.config.model.judge == "frontier" or planner.guidance_scale == 0.0:
            return 0.0
        num, kept = 16, {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        networks, inputs = self.agent.networks, self._inputs(num)
        weights = {p.untyped_storage().data_ptr() for p in networks.parameters()}
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with torch.compiler.set_stance("force_eager"), hooks:
            inputs[0].requires_grad_()
            both = networks.reward(*inputs).sum() + networks.cost(*inputs).sum()
        del both
        return sum(size for pointer, size in kept.items() if pointer not in weights) / num

    def _inputs(self, num: int) -> list[Tensor]:
        model, task, device = self.agent.config.model, self.agent.task, self.agent.device
        x = torch.zeros(num, model.horizon, task.obs_dim + task.act_dim, device=device)
        inputs = [x, torch.zeros(1, dtype=torch.long, device=device)]
        return [*inputs, torch.ones(num, 1, device=device)] if model.time_to_go else inputs

    def _calls(self) -> list[tuple[float, nn.Module, list[Tensor]]]:
        """How often one plan calls which network on what; a backward pass counts as one more."""
        config, networks = self.agent.config, self.agent.networks
        planner, num = config.planner, config.planner.num_candidates
        num_steps = planner.sampling_steps or config.model.diffusion_steps
        inputs = self._inputs(max(num, 1))
        calls = [(float(num_steps * (num > 0)), networks.denoiser, inputs[:2])]
        if config.model.judge == "frontier":
            return calls + self._frontier_calls()
        repeats = planner.guidance_repeats
        if self.plain is not None:
            return [*calls, *((2.0 * repeats * num_steps, n, inputs) for n in self._values())]
        rows = self.agent.planner._sampling_schedule.rows
        first = planner.num_unguided_steps
        guided = sum(variance > 0 and i >= first for _, i, _, _, variance in rows)
        guided *= planner.guidance_scale > 0.0
        reward, cost = self._values()
        of_cost = 2.0 if self.budget == EVERYBODY_OVER else 1.0
        return [
            *calls,
            (2.0 * repeats * guided + 1.0, reward, inputs),
            (of_cost * repeats * guided + 1.0, cost, inputs),
        ]

    def _values(self) -> tuple[nn.Module, nn.Module]:
        return self.agent.networks.reward, self.agent.networks.cost

    def _frontier_calls(self) -> list[tuple[float, nn.Module, list[Tensor]]]:
        task, critic = self.agent.task, self.agent.networks.critic
        grid = len(critic.multipliers)
        horizon, rows = self.agent.config.model.horizon, self.agent.planner.num_candidates
        device = self.agent.device

        def features(num: int) -> list[Tensor]:
            return [torch.zeros(num, task.obs_dim + 4, device=device)]

        joint = torch.zeros(3, rows, task.obs_dim + task.act_dim, device=device)
        return [
            (horizon, critic.actor, features(grid)),
            (horizon, self.agent.networks.dynamics.network, [joint]),
            (1.0, critic.values, features(rows * grid)),
        ]


@torch.no_grad()
def _flops(network: nn.Module, inputs: list[Tensor]) -> float:
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops()


def _agent(preset: str, task: Task, device: torch.device, small: bool, **settings: Any):
    config = preset_config(preset, task.env_id, risk=None, **settings)
    if small:
        unet = config.model.network == "unet"
        config = config.override(**{k: v for k, v in SMALL.items() if unet or k != "base_width"})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = TrebiNetworks(config.model, task)
    if config.model.judge == "frontier":
        networks.dynamics.trusted_steps.fill_(config.model.horizon)
    one = torch.ones(task.obs_dim + task.act_dim)
    return TrebiAgent(networks, Normalizer(0 * one, one, -3 * one, 3 * one), config, task,
                      device=device)  # fmt: skip


def _plain(agent: TrebiAgent) -> PlainPlanner:
    model, planner, task = agent.config.model, agent.config.planner, agent.task
    shape = (planner.num_candidates, model.horizon, task.obs_dim + task.act_dim)
    return PlainPlanner(
        agent.networks.requires_grad_(True), shape, task.act_dim, model.diffusion_steps,
        num_repeats=planner.guidance_repeats, num_thrown_away=planner.num_unguided_steps,
        scale=planner.guidance_scale, penalty=planner.penalty,
    )  # fmt: skip


def cases(task: Task, device: torch.device, small: bool) -> list[Case]:
    """All planners that are compared on one task."""

    def agent(preset: str, **settings: Any) -> TrebiAgent:
        return _agent(preset, task, device, small, **settings)

    result = []
    for preset in ("reference", "paper"):
        ours, theirs = (agent(preset, num_candidates=64) for _ in range(2))
        name = f"the plain way, settings of `{preset}`"
        result += [Case(name, theirs, plain=_plain(theirs)), Case(f"`{preset}`", ours, name)]
    same = result[-1].compared_with
    few = 2 if small else 5
    result += [
        Case("`paper`, nobody over budget", agent("paper"), same, NOBODY_OVER),
        Case("`paper`, bfloat16", agent("paper", precision="bfloat16"), same),
        Case(f"`paper`, {few} sampling steps", agent("paper", sampling_steps=few), same),
    ]
    for name in ("quick", "frontier", "fast", "realtime"):
        result.append(Case(f"`{name}`", agent(name), same))
        if not small or name == "realtime":  # compiling takes a while
            result.append(Case(f"`{name}`, compiled", agent(name, execution="compiled"), same))
    return result if device.type == "cpu" else result + _on_a_gpu(agent, same)


def _on_a_gpu(agent: Callable[..., TrebiAgent], same: str | None) -> list[Case]:
    """What a GPU can do beyond: plans that are recorded, and U-Nets that are compiled before."""
    recorded = [
        Case(f"`{preset}`, recorded", agent(preset, execution="recorded"), same)
        for preset in ("paper", "frontier", "realtime")
    ]
    compiled = [
        Case(
            f"`paper`, compiled, {precision}",
            agent("paper", execution="compiled", precision=precision),
            same,
        )
        for precision in ("float32", "bfloat16")
    ]
    return recorded + compiled


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
        "convolution, GFLOP/s": Ceiling(_flops(convolution, [x]) / 1e9, lambda: convolution(x)),
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
    in_them = sum(time for name, time in seconds.items() if "convolution" in name)
    return in_them / sum(seconds.values())


def floor_milliseconds(case: Case, reached: dict[str, float]) -> float:
    """What the operations take at the higher rate, or reading the weights once, if longer."""
    rate = fastest_arithmetic(reached)
    return 1e3 * max(case.gigaflop() / rate, case.weight_bytes() / 1e9 / reached["copy, GB/s"])
