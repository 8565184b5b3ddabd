import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from safe_diffusion_agent.episodes import Episodes
from safe_diffusion_agent.methods.trebi.diffusion import (
    NoiseSchedule,
    Normalizer,
    paper_step,
    reference_step,
    sample,
    starting_in,
)


def no_condition(x):
    return x


def nonlinear_denoiser(x, diffusion_step):
    return torch.tanh(1.3 * x) - 0.05 * diffusion_step.to(x.dtype)[:, None, None]


def reference_scheduler(num_steps):
    scheduler = DDPMScheduler(
        num_train_timesteps=num_steps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        variance_type="fixed_small",
        clip_sample=False,
    )
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.parametrize("num_steps", [1, 10, 20, 100])
def test_schedule_is_diffusers_cosine_schedule(num_steps):
    schedule, reference = NoiseSchedule.cosine(num_steps), reference_scheduler(num_steps)
    np.testing.assert_allclose(schedule.alpha_bar, reference.alphas_cumprod, rtol=1e-4, atol=1e-7)


def test_schedule_has_the_reference_codes_values():
    """beta and posterior variance that the released code computes for T = 20."""
    variance = [variance for *_, variance in NoiseSchedule.cosine(20).rows]
    expected = [0, 0.00575, 0.01519, 0.02614, 0.03808, 0.05094, 0.06482, 0.07990, 0.09651, 0.11506,
                0.13614, 0.16059, 0.18960, 0.22503, 0.26980, 0.32884, 0.41111, 0.53433, 0.73490,
                0.99295]  # fmt: skip
    np.testing.assert_allclose(variance, expected, atol=6e-6)
    assert sum(variance[2:]) == pytest.approx(4.470, abs=5e-4)


def test_forward_process_is_diffusers():
    schedule, reference = NoiseSchedule.cosine(20), reference_scheduler(20)
    clean, noise = torch.randn(20, 4, 3), torch.randn(20, 4, 3)
    steps = torch.arange(20)
    np.testing.assert_allclose(
        schedule.add_noise(clean, steps, noise),
        reference.add_noise(clean, noise, steps),
        atol=1e-5,
    )


@pytest.mark.parametrize("num_steps", [1, 10, 20])
def test_reverse_process_is_diffusers_step_by_step(num_steps):
    """The same network, the same noise: every intermediate trajectory is the same."""
    shape, ours, reference = (5, 8, 4), [], []

    def recording_condition(x):
        ours.append(x.clone())
        return x

    sample(
        nonlinear_denoiser,
        NoiseSchedule.cosine(num_steps),
        NoiseSchedule.cosine(num_steps).draw_noise(shape, torch.Generator().manual_seed(0)),
        recording_condition,
    )
    scheduler, generator = reference_scheduler(num_steps), torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    reference.append(x)
    for t in scheduler.timesteps:
        clean = nonlinear_denoiser(x, t.reshape(1))
        x = scheduler.step(clean, t, x, generator=generator).prev_sample
        reference.append(x)
    assert len(ours) == len(reference) == num_steps + 1
    for mine, theirs in zip(ours, reference, strict=True):
        assert (mine - theirs).abs().max() < 2e-5


@pytest.mark.parametrize("guided_step", [paper_step, reference_step])
@pytest.mark.parametrize("repeats", [1, 2])
def test_guided_step_is_the_formula_written_out(guided_step, repeats):
    """Alg. 1 line 11 (on the mean) and the reference code (on the input), as plain loops."""
    schedule, shape, unguided = NoiseSchedule.cosine(6), (3, 4, 2), 2
    on_the_input = guided_step is reference_step

    def guide(x, diffusion_step):
        return torch.cos(x) * (1.0 + diffusion_step.to(x.dtype))

    result, noised = sample(
        nonlinear_denoiser,
        schedule,
        schedule.draw_noise(shape, torch.Generator().manual_seed(1)),
        no_condition,
        guide,
        guided_step=guided_step,
        guidance_repeats=repeats,
        num_unguided_steps=unguided,
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator)
    for i in reversed(range(6)):
        step, moved = torch.tensor([i]), x
        *_, clean_weight, noised_weight, variance = schedule.rows[i]
        for _ in range(repeats if i >= unguided else 0):
            moved = moved + variance * guide(moved, step)
        start = moved if on_the_input else x
        mean = clean_weight * nonlinear_denoiser(start, step)
        mean = mean + noised_weight * start
        if not on_the_input:
            mean = mean + (moved - x)
        noise = torch.randn(shape, generator=generator) if i else torch.zeros(shape)
        last, x = start, mean + variance**0.5 * noise
    torch.testing.assert_close(result, x)
    torch.testing.assert_close(noised, last)


@pytest.mark.parametrize("guided_step", [paper_step, reference_step])
def test_condition_is_imposed_after_every_change(guided_step):
    def condition(x):
        x = x.clone()
        x[:, 0, 1:] = 7.0
        return x

    seen = []

    def denoiser(x, diffusion_step):
        seen.append(x[:, 0, 1:].clone())
        return x

    result, noised = sample(
        denoiser,
        NoiseSchedule.cosine(5),
        NoiseSchedule.cosine(5).draw_noise((2, 3, 4), torch.Generator().manual_seed(0)),
        condition,
        lambda x, _: torch.ones_like(x),
        guided_step=guided_step,
    )
    for imposed in (*seen, result[:, 0, 1:], noised[:, 0, 1:]):
        assert (imposed == 7.0).all()


def test_a_start_is_imposed_and_what_is_masked_is_zero():
    x = torch.randn(2, 3, 4)
    before, mask = x.clone(), torch.ones(2, 3, 4)
    mask[:, 2] = 0.0
    first = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    imposed = starting_in(first, mask)(x)
    assert torch.equal(imposed[:, 0, 1:], first) and (imposed[:, 2] == 0).all()
    assert torch.equal(imposed[:, 0, 0], x[:, 0, 0]) and torch.equal(imposed[:, 1], x[:, 1])
    assert torch.equal(x, before), "the given trajectories are left alone"
    assert torch.equal(starting_in(first)(x)[:, 1:], x[:, 1:])


def gaussian_denoiser(mean, variance, schedule):
    """E[x_0 | x_i] of data N(mean, variance): the exact denoiser."""

    def denoise(x, diffusion_step):
        alpha_bar = schedule.alpha_bar[diffusion_step][:, None, None]
        gain = alpha_bar.sqrt() * variance / (alpha_bar * variance + 1.0 - alpha_bar)
        return mean + gain * (x - alpha_bar.sqrt() * mean)

    return denoise


@pytest.mark.parametrize("guided_step", [paper_step, reference_step])
def test_guided_samples_of_a_gaussian_have_the_closed_forms_mean_and_variance(guided_step):
    """Data N(m, s^2), reward w x, target p(x) exp(alpha w x): N(m + alpha w s^2, s^2) (Eq. 13)."""
    mean, std, slope, scale, num = 0.7, 0.6, 1.5, 0.8, 20_000
    schedule = NoiseSchedule.cosine(400)
    denoise = gaussian_denoiser(mean, std**2, schedule)

    def guide(x, diffusion_step):
        with torch.enable_grad():  # the value of a noised x is that of its expected clean one
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((slope * denoise(x, diffusion_step)).sum(), x)
        return scale * gradient

    guided, _ = sample(
        denoise,
        schedule,
        schedule.draw_noise((num, 1, 1), torch.Generator().manual_seed(0)),
        no_condition,
        guide,
        guided_step=guided_step,
    )
    standard_error = std / num**0.5
    discretisation = 0.01
    expected = mean + scale * slope * std**2
    assert float(guided.mean()) == pytest.approx(expected, abs=4 * standard_error + discretisation)
    assert float(guided.std()) == pytest.approx(std, abs=0.02)


@pytest.mark.parametrize("num_kept", [1, 3, 10])
def test_respaced_steps_are_diffusers_trailing_ones(num_kept):
    """Fewer steps: the same intermediate trajectories, with the same network and noise."""
    schedule, shape = NoiseSchedule.cosine(10).respaced(num_kept), (5, 8, 4)
    scheduler = DDPMScheduler(
        num_train_timesteps=10, beta_schedule="squaredcos_cap_v2", prediction_type="sample",
        variance_type="fixed_small", clip_sample=False, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(num_kept)
    assert schedule.diffusion_steps.flip(0).tolist() == scheduler.timesteps.tolist()
    noise = schedule.draw_noise(shape, torch.Generator().manual_seed(0))
    result, _ = sample(nonlinear_denoiser, schedule, noise, no_condition)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    for t in scheduler.timesteps:
        clean = nonlinear_denoiser(x, t.reshape(1))
        previous = scheduler.previous_timestep(t)
        before = scheduler.alphas_cumprod[previous] if previous >= 0 else torch.ones(())
        here = scheduler.alphas_cumprod[t]
        # The posterior q(x_s | x_t, x_0) of two steps of one forward process, written out.
        signal, share = (here / before).sqrt(), (1 - before) / (1 - here)
        mean = before.sqrt() * (1 - signal**2) / (1 - here) * clean + signal * share * x
        noise = torch.randn(shape, generator=generator) if previous >= 0 else torch.zeros(shape)
        x = mean + (share * (1 - signal**2)).sqrt() * noise
    assert (result - x).abs().max() < 1e-4


def test_few_steps_keep_a_gaussians_mean_and_variance():
    """Ancestral steps with the exact denoiser of a narrow Gaussian: nothing is lost by haste."""
    mean, std, num = 0.7, 0.05, 20_000
    schedule = NoiseSchedule.cosine(400)
    few_steps = schedule.respaced(8)
    noise = few_steps.draw_noise((num, 1, 1), torch.Generator().manual_seed(0))
    few, _ = sample(gaussian_denoiser(mean, std**2, schedule), few_steps, noise, no_condition)
    assert float(few.mean()) == pytest.approx(mean, abs=4 * std / num**0.5 + 1e-3)
    assert float(few.std()) < std


def test_a_respaced_schedule_of_all_steps_is_the_schedule():
    schedule = NoiseSchedule.cosine(20)
    assert schedule.respaced(20) is schedule


def test_normalizer_is_gaussian_and_leaves_constant_dimensions_alone():
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, 2.0, size=(500, 2)).astype(np.float32)
    observations[:, 1] = 1.0 + 1e-7 * rng.normal(size=500)  # a constant, but for rounding
    actions = rng.uniform(-1, 1, size=(499, 1)).astype(np.float32)
    episodes = Episodes(
        observations=observations, actions=actions, rewards=np.zeros(499), costs=np.zeros(499),
        lengths=np.array([499]), terminated=np.array([False]),
        action_low=np.array([-2.0], np.float32), action_high=np.array([2.0], np.float32),
        dataset_id="tests/made-up-v0", env_id=None, max_episode_steps=499, cost_discount=1.0,
        max_budget=1.0, metadata={},
    )  # fmt: skip
    normalizer = Normalizer.fit(episodes)
    acted, observed = torch.tensor(actions), torch.tensor(observations)
    normalized = normalizer.actions(acted), normalizer.observations(observed)
    for part, std in zip(normalized, ([1.0], [1.0, 0.0]), strict=True):
        np.testing.assert_allclose(part.mean(dim=0), [0.0] * len(std), atol=1e-5)
        np.testing.assert_allclose(part.std(dim=0), std, atol=2e-3)
    torch.testing.assert_close(normalizer.to_environment(normalized[0], slice(1)), acted)
    torch.testing.assert_close(normalizer.to_environment(normalized[1], slice(1, None)), observed)
    rows = torch.cat([acted, observed[:-1]], dim=1)
    together = normalizer.trajectories(rows)
    torch.testing.assert_close(together, torch.cat([normalized[0], normalized[1][:-1]], dim=1))
    torch.testing.assert_close(normalizer.to_environment(together), rows)
    bounds = normalizer.to_environment(torch.stack([normalizer.low, normalizer.high]))
    np.testing.assert_allclose(bounds[:, 0], [-2.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(
        bounds[:, 1], [observations[:, 0].min(), observations[:, 0].max()], rtol=1e-5
    )
