"""Safe offline reinforcement learning with a budget that is given at run time."""

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.methods.table import METHODS, load_agent
from safe_diffusion_agent.methods.trebi.agent import TrebiAgent
from safe_diffusion_agent.methods.trebi.calibration import AdaptiveRisk
from safe_diffusion_agent.methods.trebi.feasibility import Feasibility
from safe_diffusion_agent.methods.trebi.plan import Candidates, Plan

__all__ = [
    "METHODS",
    "AdaptiveRisk",
    "Agent",
    "Candidates",
    "Feasibility",
    "Plan",
    "TrebiAgent",
    "load_agent",
]
