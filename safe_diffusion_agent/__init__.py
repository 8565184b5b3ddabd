"""Safe offline reinforcement learning with a budget that is given at run time."""

from safe_diffusion_agent.adaptive_risk import AdaptiveRisk
from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.methods import METHODS, load_agent
from safe_diffusion_agent.trebi.agent import TrebiAgent
from safe_diffusion_agent.trebi.feasibility import Feasibility
from safe_diffusion_agent.trebi.plan import Candidates, Plan

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
