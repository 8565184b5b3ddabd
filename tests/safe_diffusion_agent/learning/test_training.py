import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from safe_diffusion_agent.compute import record_cuda_graph
from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.learning.training import OptimizationConfig, Stages, Training, optimize
from safe_diffusion_agent.storage import load_checkpoint

CONFIG = OptimizationConfig(
    num_steps=300,
    accumulate=2,
    learning_rate=0.05,
    decay_from=0.5,
    ema_decay=0.9,
    ema_interval=1,
    ema_start=10,
)


def linear_model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


class Regression(Training):
    """Trains a model to be a known plane."""

    def __init__(self, networks=None):
        super().__init__(networks or linear_model())

    def losses(self, generator):
        device = generator.device
        x = torch.randn(16, 3, generator=generator, device=device)
        target = x @ torch.tensor([[1.0], [-2.0], [0.5]], device=device) + 3.0
        return {"loss": ((self.networks(x) - target) ** 2).mean()}


def train(config=CONFIG, **kwargs):
    generator = torch.Generator().manual_seed(0)
    return optimize(Regression(), config, generator=generator, **kwargs)


def same_weights(left, right):
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_finds_the_regression():
    module, history = train()
    torch.testing.assert_close(module.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.05, rtol=0)
    torch.testing.assert_close(module.bias, torch.tensor([3.0]), atol=0.05, rtol=0)
    assert history[-1]["step"] == 300


def record_on_the_cpu(function, arguments, generator):
    """Keeps to what `record_cuda_graph` promises: it warms up, and results are overwritten."""
    state = generator.get_state()
    for _ in range(3):
        function(*arguments)
    generator.set_state(state)
    results = function(*arguments)
    generator.set_state(state)

    def replay():
        for parts, new in zip(results, function(*arguments), strict=True):
            for name, part in parts.items():
                part.copy_(new[name])

    return replay, results


def test_a_recorded_training_is_the_plain_one(tmp_path):
    module, history = train()
    recorded, recorded_history = train(record=record_on_the_cpu)
    assert same_weights(module, recorded) and history == recorded_history
    assert len({point["loss"] for point in history}) > 100  # parts are not those of one replay


@pytest.mark.cuda
def test_a_gpu_replays_the_plain_training():
    histories = []
    for record in (None, record_cuda_graph):
        generator = torch.Generator("cuda").manual_seed(0)
        _, history = optimize(Regression().cuda(), CONFIG, generator=generator, record=record)
        histories.append([point["loss"] for point in history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-3, abs=1e-5)


def test_average_is_the_exponential_one():
    """Against the recursion written out, with plain gradient descent's weights recorded."""
    recorded = []

    class Recording(Regression):
        def losses(self, generator):
            recorded.append(self.networks.weight.detach().clone())
            return super().losses(generator)

    config = replace(CONFIG, accumulate=1, num_steps=30, ema_interval=2)
    training = Recording()
    averaged, _ = optimize(training, config, generator=torch.Generator().manual_seed(0))
    last = training.networks.weight.detach()
    after_step = [*recorded[1:], last]  # after_step[k]: weights after step k + 1
    expected = after_step[9]
    for step in range(11, 31):
        if step % 2 == 0:
            expected = 0.9 * expected + 0.1 * after_step[step - 1]
    torch.testing.assert_close(averaged.weight, expected)


def test_gradients_are_accumulated():
    """Two batches averaged make the step that one batch of both makes."""
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(k)) for k in range(2)]

    class Given(Training):
        def __init__(self, queue):
            super().__init__(linear_model())
            self.queue = list(queue)

        def losses(self, generator):
            return {"loss": (self.networks(self.queue.pop(0)) ** 2).mean()}

    config = replace(CONFIG, num_steps=1)
    generator = torch.Generator()
    split, joint = Given(batches), Given([torch.cat(batches)])
    optimize(split, config, generator=generator)
    optimize(joint, replace(config, accumulate=1), generator=generator)
    assert not split.queue and not joint.queue
    torch.testing.assert_close(split.networks.weight, joint.networks.weight)


def test_without_an_average_the_weights_of_the_last_step_are_returned():
    training = Regression()
    config = OptimizationConfig(num_steps=7, learning_rate=0.05)
    networks, _ = optimize(training, config, generator=torch.Generator().manual_seed(0))
    assert networks is not training.networks and same_weights(networks, training.networks)
    assert not networks.training and not any(p.requires_grad for p in networks.parameters())


def test_losses_are_weighted_by_name_and_logged_unweighted():
    class Two(Training):
        loss_weights = {"second": 0.0}

        def losses(self, generator):
            return {
                "first": (self.networks.weight**2).sum(),
                "second": (self.networks.bias**2).sum(),
            }

    training = Two(linear_model())
    bias = training.networks.bias.detach().clone()
    _, history = optimize(training, replace(CONFIG, num_steps=1), generator=torch.Generator())
    assert torch.equal(training.networks.bias, bias)
    assert history[0]["second"] == pytest.approx(float(bias) ** 2)
    training.loss_weights = {}
    optimize(training, replace(CONFIG, num_steps=1), generator=torch.Generator())
    assert not torch.equal(training.networks.bias, bias)


def test_learning_rates_are_those_of_the_longest_beginning_of_the_name():
    """The first step of Adam moves every weight by its learning rate."""
    training = Regression(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)))
    training.learning_rates = {"networks": 0.1, "networks.1": 0.01, "networks.1.bias": 0.001}
    training.held = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    before = {name: p.detach().clone() for name, p in training.named_parameters()}
    optimize(training, replace(CONFIG, num_steps=1), generator=torch.Generator())
    moved = {
        name: float((p - before[name]).detach().abs().max())
        for name, p in training.named_parameters()
    }
    expected = {"networks.0.weight": 0.1, "networks.0.bias": 0.1, "networks.1.weight": 0.01,
                "networks.1.bias": 0.001, "held": 0.0}  # fmt: skip
    assert moved == pytest.approx(expected, rel=1e-3)
    training.learning_rates = {"networks.2": 0.1}
    with pytest.raises(ValueError, match="should name trained parameters. Received .'networks.2'"):
        optimize(training, CONFIG, generator=torch.Generator())


def test_after_every_step_what_no_gradient_moves_is_moved():
    class Counting(Regression):
        def __init__(self):
            super().__init__()
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

        def after_step(self):
            assert not torch.is_grad_enabled()
            self.steps += 1

    training = Counting()
    optimize(training, replace(CONFIG, num_steps=9), generator=torch.Generator())
    assert training.steps == 9


def test_settings_of_the_same_names_are_taken():
    class Settings:
        num_steps, learning_rate, accumulate, decay_from = 7, 0.1, 2, 0.5
        ema_decay, ema_interval, ema_start, batch_size = 0.9, 3, 4, 99

    assert OptimizationConfig.of(Settings) == OptimizationConfig(
        num_steps=7, learning_rate=0.1, accumulate=2, decay_from=0.5, ema_decay=0.9,
        ema_interval=3, ema_start=4,
    )  # fmt: skip


def test_stages_save_beside_the_first_and_count_on(tmp_path):
    seen = []
    options = {"seed": 0, "identity": {}, "total": 9}
    stages = Stages(
        state_path=tmp_path / "training.safetensors", progress=lambda *a, **k: seen.append((a, k)),
        **options,
    )  # fmt: skip
    assert stages.path("models") == tmp_path / "training-models.safetensors"
    stages.progress_after(4)(2, 5, loss=1.0)
    assert seen == [((6, 9), {"loss": 1.0})]
    silent = Stages(state_path=None, progress=None, **options)
    assert silent.path("models") is None
    silent.progress_after(4)(2, 5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [3, 50, 137, 299])
def test_continued_training_is_the_uninterrupted_one(tmp_path, step):
    expected, expected_history = train()
    arguments = {"state_path": tmp_path / "state", "identity": {"a": (1, 2)}, "save_interval": 25}

    def kill(done, total, **_):
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        train(**arguments, progress=kill)
    done = []
    module, history = train(**arguments, progress=lambda d, *_, **__: done.append(d))
    # The state of a step is saved before its progress is told; killed in between, it is repeated.
    assert done[0] == step - (step - 1) % 25
    assert same_weights(module, expected)
    assert history == expected_history


def test_losses_between_two_entries_of_the_history_survive_an_interruption(tmp_path):
    """Three steps are one entry; the state is saved every four."""
    config = replace(CONFIG, num_steps=600)
    _, expected = train(config)
    assert [entry["step"] for entry in expected] == list(range(3, 601, 3))

    def kill(done, total, **_):
        if done == 102:
            raise Killed

    options = {"state_path": tmp_path / "state", "save_interval": 4}
    with pytest.raises(Killed):
        train(config, progress=kill, **options)
    assert train(config, **options)[1] == expected


def test_a_finished_training_is_not_repeated(tmp_path):
    first, history = train(state_path=tmp_path / "state")
    again, same_history = train(state_path=tmp_path / "state", progress=pytest.fail)
    assert same_weights(first, again)
    assert history == same_history


def test_state_of_another_training_is_refused(tmp_path):
    train(state_path=tmp_path / "state", identity={"dataset": "a"})
    with pytest.raises(CheckpointError, match="dataset is 'a', not 'b'"):
        train(state_path=tmp_path / "state", identity={"dataset": "b"})


@pytest.mark.parametrize("size", [(3, 2), (2, 1)])
def test_a_state_that_does_not_fit_is_refused(tmp_path, size):
    """As one is that another version wrote, whose networks had other names or shapes."""
    train(state_path=tmp_path / "state")
    other = Regression(torch.nn.Linear(*size))
    options = {"generator": torch.Generator(), "state_path": tmp_path / "state"}
    with pytest.raises(CheckpointError, match="another version. Delete it to start again"):
        optimize(other, CONFIG, **options)
    with pytest.raises(CheckpointError, match="another version"):
        optimize(Regression(torch.nn.Sequential(linear_model())), CONFIG, **options)


def test_a_loss_that_is_not_finite_stops_the_training():
    class Broken(Training):
        def losses(self, generator):
            return {"loss": self.networks.weight.sum() * torch.nan}

    with pytest.raises(FloatingPointError, match="not finite at step 1 .loss."):
        optimize(Broken(linear_model()), CONFIG, generator=torch.Generator())


SCRIPT = """
import sys
from pathlib import Path
import torch
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit

torch.set_num_threads(1)
config = METHODS["trebi"].config("quick", "safe/Pendulum-v0", num_steps=400, batch_size=64)
agent, history = fit(
    load_episodes(sys.argv[1]), config, state_path=Path(sys.argv[2]), save_interval=20
)
agent.save(sys.argv[3])
print(history[-1])
"""


def test_sigkill_and_resume(tiny_dataset, tmp_path):
    """The real training in a process of its own, killed without warning, ends the same."""
    command = [sys.executable, "-c", SCRIPT, tiny_dataset]
    state = tmp_path / "state"
    deadline = time.monotonic() + 300
    with subprocess.Popen([*command, state, tmp_path / "killed"], env=os.environ) as process:
        try:
            while not (state.exists() and load_checkpoint(state, "training")[1]["step"] >= 100):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert load_checkpoint(state, "training")[1]["step"] < 400
    resumed, uninterrupted = (
        subprocess.run([*command, path, out], capture_output=True, text=True, check=True).stdout
        for path, out in ((state, tmp_path / "killed"), (tmp_path / "fresh", tmp_path / "whole"))
    )
    assert resumed == uninterrupted
    weights = [load_checkpoint(tmp_path / name / "agent.safetensors", "trebi")[0]
               for name in ("killed", "whole")]  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
