"""Every method trains, acts and explains itself on an accelerator as it does on the CPU.

On a GPU if there is one; else on a device that is pretended, in a process of its own (see
`tests/plugins/pretend_accelerator.py`).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_agent
from safe_diffusion_agent.experiments.inspection import decision_at
from safe_diffusion_agent.learning import training as optimization
from safe_diffusion_agent.methods.table import METHODS, load_agent

PLUGINS = Path(__file__).parents[1] / "plugins"
SHORT = {"num_steps": 6, "batch_size": 16}
SMALL = {**SHORT, "horizon": 8, "diffusion_steps": 3, "num_candidates": 4}
UNET = {**SMALL, "base_width": 16, "width_mults": (1, 2)}
FRONTIER = {
    **SHORT, "model_steps": 20, "critic_steps": 10, "imitation_steps": 10,
    "num_branches": 30, "branch_interval": 5,
    "min_branch_steps": 1, "calibration_episodes": 20, "horizon": 8, "num_candidates": 3,
    "risk": 0.2,
}  # fmt: skip
CASES = {
    "paper": ("trebi", "paper", UNET),
    "reference": ("trebi", "reference", UNET),
    "small": ("trebi", "small", SMALL),
    "quick": ("trebi", "quick", {**SMALL, "calibration_share": 0.25}),
    "frontier": ("trebi", "frontier", FRONTIER),
    "realtime": ("trebi", "realtime", {**FRONTIER, "num_candidates": 0}),
    "diffuser": ("diffuser", "quick", SMALL),
    **{name: (name, "quick", SHORT) for name in METHODS if name not in ("trebi", "diffuser")},
}
OBSERVATIONS = np.array([[-1.0, 0.0, 0.0], [0.9, 0.1, 2.0], [0.0, 1.0, -3.0]], np.float32)
BUDGETS, STEPS = np.array([0.5, 30.0, np.inf]), np.array([200, 50, 1])

# The networks of a moment are bad ones, about which an agent may warn.
pytestmark = pytest.mark.filterwarnings("ignore:The critic of this agent:UserWarning")
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def accelerator(request) -> str:
    asked_for = request.config.getoption("--device")
    if asked_for == "cpu" and not torch.cuda.is_available():
        pytest.skip("there is no accelerator")
    return "cuda" if asked_for == "cpu" else asked_for


@pytest.fixture(autouse=True)
def as_exact_as_the_cpu(monkeypatch):
    """A choice between candidates of almost the same value should not hang on rounding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def refuse_to_wait(accelerator: str, refuse: bool) -> None:
    """Whether it is an error that the CPU waits for the accelerator."""
    if accelerator == "cuda":
        torch.cuda.set_sync_debug_mode("error" if refuse else "default")
    else:
        sys.modules["pretend_accelerator"].waiting_is_an_error = refuse


class Watched(optimization._Run):
    """A training whose steps must not wait for the device, which would stand idle between them."""

    accelerator: str

    num_watched = 0

    def gradients(self, record):
        compute = super().gradients(record)

        def compute_without_waiting():
            Watched.num_watched += 1
            refuse_to_wait(self.accelerator, True)
            try:
                return compute()
            finally:
                refuse_to_wait(self.accelerator, False)

        return compute_without_waiting


@pytest.fixture(scope="module")
def folders(accelerator, tiny_episodes, tmp_path_factory):
    """Where the agent of a case lies that was trained on the accelerator."""
    made = {}

    def folder(case):
        if case not in made:
            method, preset, settings = CASES[case]
            config = METHODS[method].config(preset, "safe/Pendulum-v0", **settings)
            with pytest.MonkeyPatch.context() as patch:
                watched = method != "cpq"  # it looks which actions are unlike the data's
                if watched:
                    patch.setattr(Watched, "accelerator", accelerator, raising=False)
                    patch.setattr(optimization, "_Run", Watched)
                before = Watched.num_watched
                agent, losses = METHODS[method].fit(
                    tiny_episodes, config, seed=0, device=accelerator
                )
            assert (Watched.num_watched > before) == watched
            assert agent.device.type == accelerator
            assert np.isfinite(list(losses[-1].values())).all()
            made[case] = tmp_path_factory.mktemp(case)
            agent.save(made[case])
        return made[case]

    return folder


def seeded() -> torch.Generator:
    """On the CPU: it gives the same numbers to agents on any device."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def agents(folders, accelerator):
    """The same agent on the CPU and on the accelerator."""
    return lambda case: [load_agent(folders(case), device=d) for d in ("cpu", accelerator)]


@every_case
def test_acts_alike_on_both(agents, case):
    actions = [
        agent.act(OBSERVATIONS, BUDGETS, STEPS, generator=seeded()) for agent in agents(case)
    ]
    assert actions[1].shape == (3, 1)
    np.testing.assert_allclose(*actions, rtol=1e-2, atol=1e-2)


@every_case
def test_its_own_random_numbers_are_those_of_the_seed(folders, accelerator, case):
    actions = [
        load_agent(folders(case), device=accelerator, seed=3).act(OBSERVATIONS, BUDGETS, STEPS)
        for _ in range(2)
    ]
    np.testing.assert_allclose(*actions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["paper", "quick", "frontier"])
def test_explains_itself_alike_on_both(agents, case):
    feasibilities, decisions = [], []
    for agent in agents(case):
        given = (OBSERVATIONS, BUDGETS, STEPS)
        feasibilities.append(agent.feasibility(*given, num_samples=16, generator=seeded()))
        decisions.append(decision_at(agent, budget=20.0, step=5, seed=0))
    np.testing.assert_allclose(*(f.safe_mass for f in feasibilities), atol=0.1)
    shapes = {decision.plan.actions.shape for decision in decisions}
    assert len(shapes) == 1 and all(np.isfinite(d.plan.actions).all() for d in decisions)


def test_is_evaluated(folders, accelerator):
    agent = load_agent(folders("frontier"), device=accelerator)
    config = EvaluationConfig(num_episodes=2, ratios=(0.2, 1.0), control_interval=8)
    assert len(evaluate_agent(agent, "safe/Pendulum-v0", config)) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="needs a newer PyTorch",
)
def test_all_of_this_on_a_pretended_accelerator(request):
    if request.config.getoption("--device") == "pretend":
        pytest.skip("this is it")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "pretend_accelerator", "--device", "pretend"]
        + ["-p", "no:cacheprovider", "-p", "no:xdist", __file__],
        env={**os.environ, "PYTHONPATH": str(PLUGINS)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert " passed, 1 skipped" in result.stdout, result.stdout
