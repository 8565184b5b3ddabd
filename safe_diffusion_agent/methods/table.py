"""Every method there is: what it is, how it is trained, and how its agents are loaded."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

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
from safe_diffusion_agent.methods.baselines.fitting import fit as fit_baseline
from safe_diffusion_agent.methods.trebi.agent import DiffuserAgent, TrebiAgent
from safe_diffusion_agent.methods.trebi.fit import fit as fit_trebi
from safe_diffusion_agent.methods.trebi.presets import GUIDED, PRESETS, TASK_OVERRIDES
from safe_diffusion_agent.settings import change, override
from safe_diffusion_agent.storage import agent_file, checkpoint_kind

ANY_BUDGET = "one training, any budget at any step"
PER_BUDGET = "one training per budget"
NO_BUDGET = "none"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to an agent.

    Attributes:
        summary: One line on what it is.
        budgets: How it comes to keep a budget: `ANY_BUDGET`, `PER_BUDGET` or `NO_BUDGET`.
        agent_class: Class of its agents; its `method` is the name.
        fit: Called as `fit(source, config, seed=, device=, state_path=, progress=)`; returns the
            agent and its logged losses. The source is a dataset's `Episodes`, or the id of an
            environment where the method learns online.
        presets: Named settings.
        task_overrides: Settings that differ by task: preset -> task -> settings.
        learns: From a dataset (`"offline"`), in an environment (`"online"`), or from `"either"`.
    """

    summary: str
    budgets: str
    agent_class: Any
    fit: Callable[..., tuple[Agent, list[dict[str, float]]]]
    presets: Mapping[str, Any]
    task_overrides: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    learns: Literal["offline", "online", "either"] = "offline"

    @property
    def constrained(self) -> bool:
        """Whether the budget matters to it at all."""
        return self.budgets != NO_BUDGET

    def config(self, preset: str, env_id: str | None = None, **settings: Any) -> Any:
        """Returns the config of a preset: its own settings, then the task's, then the given ones.

        Raises:
            UnknownNameError: There is no such preset or setting.
            ValueError: A value is out of range, or a setting would have no effect.
        """
        if preset not in self.presets:
            raise UnknownNameError("preset", preset, self.presets)
        of_task = self.task_overrides.get(preset, {}).get(env_id or "", {})
        of_preset = change(self.presets[preset], of_task)
        return override(of_preset, settings, unread=self.agent_class.unread)

    def check_source(self, *, online: bool) -> None:
        """Refuses to learn from what the method cannot learn from.

        Args:
            online: Whether an environment is given, and not a dataset.

        Raises:
            ValueError: It learns from the other.
        """
        name = self.agent_class.method
        if online and self.learns == "offline":
            raise ValueError(f"{name} learns from a dataset: give the id of one (`trebi list`).")
        if not online and self.learns == "online":
            raise ValueError(f"{name} learns in an environment: give the id of a task.")


def _baseline(module: Any, agent_class: Any, summary: str, budgets: str) -> Method:
    return Method(
        summary=summary,
        budgets=budgets,
        agent_class=agent_class,
        fit=partial(fit_baseline, agent_class),
        presets=module.PRESETS,
    )


_METHODS = (
    Method(
        summary="TREBI: guided diffusion planning within the remaining budget (Lin et al. 2023)",
        budgets=ANY_BUDGET,
        agent_class=TrebiAgent,
        fit=fit_trebi,
        presets=PRESETS,
        task_overrides=TASK_OVERRIDES,
    ),
    _baseline(
        caps,
        caps.CapsAgent,
        "CAPS: a reward head and a cost head, switched by the cost critic (Chemingui et al. 2025)",
        ANY_BUDGET,
    ),
    _baseline(
        bcq_saute,
        bcq_saute.BcqSauteAgent,
        "BCQ with the remaining budget in the state, and a penalty beyond it (Sootla et al. 2022)",
        ANY_BUDGET,
    ),
    _baseline(
        bcorle,
        bcorle.BcorleAgent,
        "BCORLE(λ): BCQ with the price of cost in the state, found by bisection "
        "(Zhang et al. 2021)",
        ANY_BUDGET,
    ),
    _baseline(
        bcq_lagrangian,
        bcq_lagrangian.BcqLagrangianAgent,
        "BCQ with a learned price of cost (Fujimoto et al. 2019; Lin et al. 2023)",
        PER_BUDGET,
    ),
    _baseline(
        cpq,
        cpq.CpqAgent,
        "CPQ: values only through actions that are safe and like the data's (Xu et al. 2022)",
        PER_BUDGET,
    ),
    Method(
        summary="plain Diffuser: TREBI's planner without a constraint (Janner et al. 2022)",
        budgets=NO_BUDGET,
        agent_class=DiffuserAgent,
        fit=partial(fit_trebi, agent_class=DiffuserAgent),
        presets=GUIDED,
        task_overrides=TASK_OVERRIDES,
    ),
    _baseline(bcq, bcq.BcqAgent, "BCQ without a constraint (Fujimoto et al. 2019)", NO_BUDGET),
    _baseline(behavior_cloning, behavior_cloning.CloningAgent, "behavior cloning", NO_BUDGET),
)
METHODS: dict[str, Method] = {method.agent_class.method: method for method in _METHODS}


def method_of(name: str) -> Method:
    """Returns the method of a name.

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
    """Loads an agent of any method.

    Args:
        path: Folder of a run, or the name of a pretrained agent.
        device: `"cpu"`, `"cuda"`, ...; `"auto"` takes a GPU if there is one.
        seed: Fixes the agent's random numbers.
        **settings: Settings to change that training did not fix.

    Raises:
        UnknownNameError: There is neither such a folder nor such an agent or setting.
        CheckpointError: The file is damaged or foreign.
    """
    kind = checkpoint_kind(agent_file(path))
    agent: Agent = method_of(kind).agent_class.load(path, device=device, seed=seed, **settings)
    return agent
