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
from safe_diffusion_agent.learning.training import OptimizationConfig, optimize
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


def noisy_regression(module, generator):
    x = torch.randn(16, 3, generator=generator)
    target = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3.0
    loss = ((module(x) - target) ** 2).mean()
    return loss, {"loss": loss.detach()}


def train(**kwargs):
    generator = torch.Generator().manual_seed(0)
    return optimize(linear_model(), noisy_regression, CONFIG, generator=generator, **kwargs)


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
    def regression(module, generator):
        x = torch.randn(16, 3, generator=generator, device="cuda")
        loss = ((module(x) - x.sum(dim=1, keepdim=True)) ** 2).mean()
        return loss, {"loss": loss.detach()}

    histories = []
    for record in (None, record_cuda_graph):
        generator = torch.Generator("cuda").manual_seed(0)
        module, history = optimize(
            linear_model().cuda(), regression, CONFIG, generator=generator, record=record
        )
        histories.append([point["loss"] for point in history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-3, abs=1e-5)


def test_average_is_the_exponential_one():
    """Against the recursion written out, with plain gradient descent's weights recorded."""
    recorded = []

    def recording(module, generator):
        recorded.append(module.weight.detach().clone())
        return noisy_regression(module, generator)

    config = replace(CONFIG, accumulate=1, num_steps=30, ema_interval=2)
    module = linear_model()
    averaged, _ = optimize(module, recording, config, generator=torch.Generator().manual_seed(0))
    after_step = [*recorded[1:], module.weight.detach()]  # after_step[k]: weights after step k + 1
    expected = after_step[9]
    for step in range(11, 31):
        if step % 2 == 0:
            expected = 0.9 * expected + 0.1 * after_step[step - 1]
    torch.testing.assert_close(averaged.weight, expected)


def test_gradients_are_accumulated():
    """Two batches averaged make the step that one batch of both makes."""
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(k)) for k in range(2)]

    def loss_of(x, module):
        loss = (module(x) ** 2).mean()
        return loss, {"loss": loss.detach()}

    queue = list(batches)
    config = replace(CONFIG, num_steps=1)
    generator = torch.Generator()
    split = linear_model()
    optimize(split, lambda m, _: loss_of(queue.pop(0), m), config, generator=generator)
    joint = linear_model()
    config = replace(config, accumulate=1)
    optimize(joint, lambda m, _: loss_of(torch.cat(batches), m), config, generator=generator)
    torch.testing.assert_close(split.weight, joint.weight)


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


def test_a_finished_training_is_not_repeated(tmp_path):
    first, history = train(state_path=tmp_path / "state")
    again, same_history = train(state_path=tmp_path / "state", progress=pytest.fail)
    assert same_weights(first, again)
    assert history == same_history


def test_state_of_another_training_is_refused(tmp_path):
    train(state_path=tmp_path / "state", identity={"dataset": "a"})
    with pytest.raises(CheckpointError, match="dataset is 'a', not 'b'"):
        train(state_path=tmp_path / "state", identity={"dataset": "b"})


def test_a_loss_that_is_not_finite_stops_the_training():
    def broken(module, generator):
        loss = module.weight.sum() * torch.nan
        return loss, {"loss": loss.detach()}

    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        optimize(linear_model(), broken, CONFIG, generator=torch.Generator())


SCRIPT = """
import sys
from pathlib import Path
import torch
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.methods.trebi.presets import preset_config
from safe_diffusion_agent.methods.trebi.fit import fit

torch.set_num_threads(1)
config = preset_config("quick", "safe/Pendulum-v0", num_steps=400, batch_size=64)
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
