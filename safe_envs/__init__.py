"""Gymnasium tasks with a cost signal and a budget. Importing this package registers them."""

from safe_envs.adapters import FromSafetyGymnasium, ToSafetyGymnasium
from safe_envs.budget import BudgetObservation, next_remaining_budget
from safe_envs.cost_signal import CostSignal, TerminalCost
from safe_envs.episode_cost import RecordEpisodeCost, VectorRecordEpisodeCost
from safe_envs.overlay import RenderOverlay
from safe_envs.registration import TASKS, TaskSpec, register_tasks, task_spec
from safe_envs.speed_limit import SpeedLimit
from safe_envs.vector import VectorBudgetObservation

__all__ = [
    "TASKS",
    "BudgetObservation",
    "CostSignal",
    "FromSafetyGymnasium",
    "RecordEpisodeCost",
    "RenderOverlay",
    "SpeedLimit",
    "TaskSpec",
    "TerminalCost",
    "ToSafetyGymnasium",
    "VectorBudgetObservation",
    "VectorRecordEpisodeCost",
    "next_remaining_budget",
    "register_tasks",
    "task_spec",
]

register_tasks()
