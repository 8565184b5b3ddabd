"""Every method there is: what it is, how it is trained, and how its agents are loaded."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.methods.baselines import (
    bcorle,
    bcq,
    bcq_lagrangian,
    bcq_saute,
    behavior_cloning,
    caps,
    cpq,
)
from safe_diffusion_agent.methods.trebi import fit as trebi_fit
from safe_diffusion_agent.methods.trebi.agent import DiffuserAgent, TrebiAgent
from safe_diffusion_agent.methods.trebi.presets import PRESETS, TASK_OVERRIDES
from safe_diffusion_agent.settings import from_preset
from safe_diffusion_agent.storage import agent_file, checkpoint_kind


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to an agent.

    Attributes:
        summary: One line on what it is.
        budgets: How it comes to keep a budget.
        agent_class: Class of its agents; its `method` is the name.
        fit: Called as `fit(episodes, config, seed=, device=, state_path=, progress=)`; returns the
            agent and its logged losses.
        presets: Named settings.
        task_overrides: Settings that differ by task: preset -> task -> settings.
        constrained: Whether the budget matters to it at all.
    """

    summary: str
    budgets: str
    agent_class: type[Agent]
    fit: Callable[..., tuple[Agent, list[dict[str, float]]]]
    presets: Mapping[str, Any]
    task_overrides: Mapping[str, Mapping[str, Mapping[str, Any]]]
    constrained: bool = True

    def config(self, preset: str, env_id: str | None = None, **settings: Any) -> Any:
        """The config of a preset: its own settings, then the task's, then the given ones.

        Raises:
            UnknownNameError: There is no such preset or setting.
            ValueError: A value is out of range.
        """
        of_task = self.task_overrides.get(preset, {}).get(env_id or "", {})
        return from_preset(self.presets, preset, {**of_task, **settings})


def _baseline(module: Any, agent_class: type[Agent], **about: Any) -> Method:
    return Method(
        agent_class=agent_class, fit=module.fit, presets=module.PRESETS, task_overrides={}, **about
    )


_METHODS = (
    Method(
        summary="TREBI: guided diffusion planning within the remaining budget (Lin et al. 2023)",
        budgets="one training, any budget at any step",
        agent_class=TrebiAgent,
        fit=trebi_fit.fit,
        presets=PRESETS,
        task_overrides=TASK_OVERRIDES,
    ),
    _baseline(
        caps,
        caps.CapsAgent,
        summary="CAPS: a reward head and a cost head, switched by the cost critic "
        "(Chemingui et al. 2025)",
        budgets="one training, any budget at any step",
    ),
    _baseline(
        bcq_saute,
        bcq_saute.BcqSauteAgent,
        summary="BCQ with the remaining budget in the state, and a penalty beyond it "
        "(Sootla et al. 2022)",
        budgets="one training, any budget at any step",
    ),
    _baseline(
        bcorle,
        bcorle.BcorleAgent,
        summary="BCORLE(λ): BCQ with the price of cost in the state, found by bisection "
        "(Zhang et al. 2021)",
        budgets="one training, any budget at any step",
    ),
    _baseline(
        bcq_lagrangian,
        bcq_lagrangian.BcqLagrangianAgent,
        summary="BCQ with a learned price of cost (Fujimoto et al. 2019; Lin et al. 2023)",
        budgets="one training per budget",
    ),
    _baseline(
        cpq,
        cpq.CpqAgent,
        summary="CPQ: values only through actions that are safe and like the data's "
        "(Xu et al. 2022)",
        budgets="one training per budget",
    ),
    Method(
        summary="plain Diffuser: TREBI's planner without a constraint (Janner et al. 2022)",
        budgets="none",
        agent_class=DiffuserAgent,
        fit=trebi_fit.fit_diffuser,
        presets={k: config for k, config in PRESETS.items() if config.model.judge == "values"},
        task_overrides=TASK_OVERRIDES,
        constrained=False,
    ),
    _baseline(
        bcq,
        bcq.BcqUnconstrainedAgent,
        summary="BCQ without a constraint (Fujimoto et al. 2019)",
        budgets="none",
        constrained=False,
    ),
    _baseline(
        behavior_cloning,
        behavior_cloning.CloningAgent,
        summary="behavior cloning",
        budgets="none",
        constrained=False,
    ),
)
METHODS: dict[str, Method] = {method.agent_class.method: method for method in _METHODS}


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def load_agent(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    seed: int = 0,
    **settings: Any,
) -> Agent:
    """Loads an agent of any method; see `Agent.load` for the arguments and errors."""
    kind = checkpoint_kind(agent_file(path))
    return method_of(kind).agent_class.load(path, device=device, seed=seed, **settings)
