"""Schedulers: which fit, what each is told, and that all of them walk to the same cells."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from cytolib.diffusion import EmbeddingDenoiser, EmbeddingDiffusionPipeline, EmbeddingStandardizer, sampling
from cytolib.diffusion.preconditioning import c_noise, denoise, denoising_loss
from cytolib.diffusion.sampling import Conditions
from cytolib.diffusion.schedulers import SAMPLERS, as_prediction, make_scheduler, noise_level

NAMES = ["basophil", "blast", "monocyte"]


def random_pipe(objective: str = "edm", domains: int = 2) -> EmbeddingDiffusionPipeline:
    """Random, non-zero weights: outputs depend on every input."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)) + 3
    torch.manual_seed(0)
    denoiser = EmbeddingDenoiser(
        embedding_dim=6, num_classes=3, num_domains=domains, width=16, depth=2, objective=objective
    ).eval()
    for weights in denoiser.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    return EmbeddingDiffusionPipeline.from_parts(denoiser, EmbeddingStandardizer.fit(X), NAMES, ["a", "b"][:domains])


class GaussianDenoiser(torch.nn.Module):
    """The exact denoiser of N(centre, spread^2 I), in the place of a trained one: samples have a known law."""

    def __init__(self, objective: str, centre: float = 1.5, spread: float = 0.5) -> None:
        super().__init__()
        self.config, self.centre, self.variance = {"objective": objective}, centre, spread**2
        self.device = torch.device("cpu")

    def modulations(self, timestep: torch.Tensor, *labels: object) -> list[torch.Tensor]:
        return [timestep[:, None]]

    def modulated(self, sample: torch.Tensor, modulations: list[torch.Tensor]) -> torch.Tensor:
        sigma = (4 * modulations[0]).exp()
        unit = (1 + sigma**2).sqrt() if self.config["objective"] == "edm" else 1 + sigma
        noisy = sample * unit
        clean = (self.variance * noisy + sigma**2 * self.centre) / (self.variance + sigma**2)
        if self.config["objective"] == "edm":
            return (clean - noisy / unit**2) * unit / sigma
        return (noisy - clean) / sigma - clean


@pytest.mark.parametrize("objective", ["edm", "flow_matching"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_the_known_law(objective: str, name: str) -> None:
    pipe = random_pipe(objective, domains=0)
    pipe.register_modules(denoiser=pipe.denoiser)
    object.__setattr__(pipe, "denoiser", GaussianDenoiser(objective))
    pipe.scheduler = make_scheduler(name)
    embeddings = pipe(np.zeros(4000, int), seeds=range(4000), num_inference_steps=60).embeddings
    Z = pipe.standardizer.transform(torch.from_numpy(embeddings)).numpy()
    np.testing.assert_allclose(Z.mean(axis=0), 1.5, atol=0.06)
    np.testing.assert_allclose(Z.std(axis=0), 0.5, atol=0.035)


@pytest.mark.parametrize("objective", ["edm", "flow_matching"])
def test_all_samplers_walk_to_the_same_cells(objective: str) -> None:
    pipe = random_pipe(objective)
    found = {}
    for name in ("dpm_solver", "euler", "heun"):  # the same first noise level within 0.1 %, hence the same walk
        pipe.scheduler = make_scheduler(name)
        if name == "heun":
            pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config, beta_end=0.0153)
        found[name] = pipe(NAMES, ["a", "b", "a"], 300, seeds=[1, 2, 3]).embeddings
    spread = float(np.abs(found["dpm_solver"]).max())
    np.testing.assert_allclose(found["euler"], found["dpm_solver"], atol=0.05 * spread)
    np.testing.assert_allclose(found["heun"], found["dpm_solver"], atol=0.1 * spread)


def test_edm_scheduler_is_told_what_a_plain_loop_would_tell_it() -> None:
    """The loop that diffusers' own pipelines write, over all cells at once, gives the same cells."""
    pipe = random_pipe()
    seeds, classes = np.arange(5), np.array([0, 1, 2, 2, 1])
    expected = pipe(classes, "b", 12, seeds=seeds).embeddings
    scheduler = EDMDPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(12)
    from cytolib.diffusion.noise import noise_from_seeds

    sample = torch.from_numpy(noise_from_seeds(seeds, 6)) * scheduler.init_noise_sigma
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(sample, timestep)
            output = pipe.denoiser(scaled, timestep, torch.from_numpy(classes), torch.ones(5, dtype=torch.long))
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
    np.testing.assert_allclose(pipe.standardizer.inverse_transform(sample), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
def test_prediction_types_are_those_of_diffusers(prediction: str) -> None:
    """At the true clean vector a DDIM step goes to the exact point on the way to it."""
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(10)
    clean, noise = torch.randn(4, 6), torch.randn(4, 6)
    sigma, scale = noise_level(scheduler, 3)
    sample = scheduler.add_noise(clean, noise, scheduler.timesteps[3].expand(4))
    torch.testing.assert_close(sample, scale * (clean + sigma * noise))
    output = as_prediction(scheduler, sample / scale, sigma, clean)
    if prediction == "v_prediction":
        torch.testing.assert_close(output, scheduler.get_velocity(clean, noise, scheduler.timesteps[3].expand(4)))
    after = scheduler.step(output, scheduler.timesteps[3], sample, return_dict=False)[0]
    expected = scheduler.add_noise(clean, noise, scheduler.timesteps[4].expand(4))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


def test_flow_step_goes_straight() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(8)
    clean, noise = torch.randn(3, 6), torch.randn(3, 6)
    sigma, scale = noise_level(scheduler, 2)
    t, after = float(scheduler.sigmas[2]), float(scheduler.sigmas[3])
    noisy = ((1 - t) * clean + t * noise) / scale
    output = as_prediction(scheduler, noisy, sigma, clean)
    torch.testing.assert_close(output, noise - clean, rtol=1e-4, atol=1e-4)
    moved = scheduler.step(output, scheduler.timesteps[2], (1 - t) * clean + t * noise, return_dict=False)[0]
    torch.testing.assert_close(moved, (1 - after) * clean + after * noise, rtol=1e-4, atol=1e-4)


def test_flow_matching_loss_is_the_error_of_the_velocity() -> None:
    pipe = random_pipe("flow_matching")
    clean, noise, sigma = torch.randn(5, 6), torch.randn(5, 6), torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0])
    t = (sigma / (1 + sigma))[:, None]
    classes = torch.tensor([0, 1, 2, 0, 1])
    velocity = pipe.denoiser((1 - t) * clean + t * noise, c_noise(sigma), classes)
    expected = (velocity - (noise - clean)).square().mean(dim=1)
    torch.testing.assert_close(denoising_loss(pipe.denoiser, clean, sigma, noise, classes), expected)
    noisy = clean + sigma[:, None] * noise
    estimate = denoise(pipe.denoiser, noisy, sigma, classes)
    torch.testing.assert_close(estimate, (1 - t) * noisy - t * velocity, rtol=1e-4, atol=1e-4)


REFUSED = [
    (DDIMScheduler(), "clip_sample=True"),  # diffusers' default clips the clean estimate to [-1, 1]
    (DDIMScheduler(clip_sample=False, thresholding=True), "thresholding=True"),
    (DDIMScheduler(clip_sample=False, beta_schedule="squaredcos_cap_v2"), "prediction_type='epsilon' where nothing"),
    (DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=True), "prediction_type='epsilon' where nothing"),
    (DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"), "prediction_type='epsilon' where nothing"),
    (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), "a process with noise of its own"),
    (HeunDiscreteScheduler(beta_schedule="squaredcos_cap_v2"), "prediction_type='epsilon' where nothing"),
    (EDMEulerScheduler(), "sigma_data=0.5"),
    (EDMEulerScheduler(sigma_data=1.0, prediction_type="v_prediction"), "prediction_type='v_prediction'"),
    (EDMDPMSolverMultistepScheduler(sigma_data=1.0, thresholding=True), "thresholding=True"),
    (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "stochastic_sampling=True"),
    (DDPMScheduler(clip_sample=False), "a process that this pipeline does not know"),
]


@pytest.mark.parametrize(("scheduler", "fault"), REFUSED, ids=lambda value: getattr(type(value), "__name__", ""))
def test_what_breaks_vectors_is_refused(scheduler: object, fault: str) -> None:
    pipe = random_pipe()
    with pytest.raises(ValueError, match=f"has {fault}.* which does not fit embeddings; use make_scheduler"):
        EmbeddingDiffusionPipeline(pipe.denoiser, pipe.standardizer, scheduler)
    pipe.scheduler = scheduler
    with pytest.raises(ValueError, match="does not fit embeddings"):
        pipe([0])


def test_refused_settings_do_break_vectors() -> None:
    """Why they are refused: the same denoiser, walked with clipping, loses what lies beyond 1."""
    pipe = random_pipe(domains=0)
    object.__setattr__(pipe, "denoiser", GaussianDenoiser("edm"))
    scheduler = DDIMScheduler(clip_sample=True, prediction_type="sample")
    scheduler.set_timesteps(50)
    sample = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    for i, timestep in enumerate(scheduler.timesteps):
        sigma, scale = noise_level(scheduler, i)
        clean = denoise_exactly(pipe.denoiser, sample / scale, sigma)
        sample = scheduler.step(clean, timestep, sample, return_dict=False)[0]
    assert sample.mean() < 1.05 and sample.max() <= 1.0 + 1e-5  # the law has mean 1.5


def denoise_exactly(denoiser: GaussianDenoiser, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    return (denoiser.variance * noisy + sigma**2 * denoiser.centre) / (denoiser.variance + sigma**2)


def test_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="sampler is 'ancestral', expected one of dpm_solver, euler, heun, ddim"):
        make_scheduler("ancestral")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_cell_is_a_function_of_its_seed_in_any_company(name: str, threads: int) -> None:
    outside = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pipe = random_pipe()
        pipe.scheduler = make_scheduler(name)
        labels, domains, seeds = np.arange(1100) % 3, np.arange(1100) % 2, np.arange(1100) * 7
        full = pipe(labels, domains, 4, guidance_scale=1.5, seeds=seeds).embeddings
        assert torch.get_num_threads() == threads
        torch.set_num_threads(3 - threads)
        for rows in ([1099], [5, 700, 3], np.arange(1100)[::-1]):
            part = pipe(labels[rows], domains[rows], 4, guidance_scale=1.5, seeds=seeds[rows]).embeddings
            np.testing.assert_array_equal(part, full[rows])
    finally:
        torch.set_num_threads(outside)


def test_an_interrupted_request_stops_and_puts_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, started = random_pipe(), []

    def interrupt(self: object, cells: np.ndarray, seeds: np.ndarray) -> Iterator[None]:
        started.append(len(cells))
        time.sleep(0.05)  # forty of these take longer than the first one's news
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(sampling.Sampler, "steps", interrupt)
    outside = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        pipe(np.zeros(40 * sampling.CHUNK, int), seeds=range(40 * sampling.CHUNK))
    assert torch.get_num_threads() == outside and len(started) < 40


def test_modulations_are_made_once_a_condition() -> None:
    pipe = random_pipe()
    classes, domains = np.array([2, 0, 2, 2, 0]), np.array([1, 1, 0, 1, 1])
    conditions = Conditions.of(classes, domains)
    assert len(conditions.classes) == 3
    table = conditions.modulations(pipe.denoiser, 0.7)
    assert all(len(layer) >= 3 for layer in table)
    level = c_noise(torch.full((5,), 0.7))
    each = pipe.denoiser.modulations(level, torch.from_numpy(classes), torch.from_numpy(domains))
    for layer, expected in zip(table, each, strict=True):
        torch.testing.assert_close(layer[torch.from_numpy(conditions.rows)], expected, rtol=1e-5, atol=1e-6)
    null = conditions.unconditional(3)
    assert set(null.classes) == {3} and len(null.classes) == 2  # the domain stays
