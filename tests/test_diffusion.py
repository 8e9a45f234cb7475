"""The denoiser, its preconditioning, the standardiser, and sampling."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler

from cytolib.diffusion import EmbeddingDenoiser, EmbeddingDiffusionPipeline, EmbeddingStandardizer
from cytolib.diffusion.card import write_model_card
from cytolib.diffusion.inspect import denoising_error, denoising_trajectory
from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.preconditioning import c_in, c_noise, denoise, denoising_loss

NAMES = ["basophil", "blast", "monocyte"]


@pytest.fixture(scope="module")
def pipe() -> EmbeddingDiffusionPipeline:
    """A small pipeline with random, non-zero weights: outputs depend on every input."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)) + 3
    torch.manual_seed(0)
    standardizer = EmbeddingStandardizer.fit(X)
    denoiser = EmbeddingDenoiser(embedding_dim=6, num_classes=3, num_domains=2, width=16, depth=2).eval()
    for weights in denoiser.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    return EmbeddingDiffusionPipeline.from_parts(denoiser, standardizer, NAMES, ["scanner a", "scanner b"])


def test_preconditioning_is_that_of_diffusers_schedulers(pipe: EmbeddingDiffusionPipeline) -> None:
    scheduler = EDMEulerScheduler(sigma_data=1.0)
    sigma = torch.tensor([0.03, 0.7, 25.0])
    noisy = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2])
    output = pipe.denoiser(
        scheduler.precondition_inputs(noisy, sigma[:, None]), scheduler.precondition_noise(sigma), classes
    )
    expected = scheduler.precondition_outputs(noisy, output, sigma[:, None])
    torch.testing.assert_close(denoise(pipe.denoiser, noisy, sigma, classes), expected)
    torch.testing.assert_close(c_noise(sigma), scheduler.precondition_noise(sigma))
    torch.testing.assert_close(c_in(sigma) ** 2 * (sigma**2 + 1), torch.ones(3))  # unit-variance input


def test_loss_is_the_weighted_denoising_error(pipe: EmbeddingDiffusionPipeline) -> None:
    draw = torch.Generator().manual_seed(2)
    clean, noise = torch.randn(5, 6, generator=draw), torch.randn(5, 6, generator=draw)
    sigma, classes = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0]), torch.tensor([0, 1, 2, 0, 1])
    estimate = denoise(pipe.denoiser, clean + sigma[:, None] * noise, sigma, classes)
    weight = (sigma**2 + 1) / sigma**2  # EDM eq. 8 and table 1, sigma_data = 1
    expected = weight * (estimate - clean).square().mean(dim=1)
    torch.testing.assert_close(
        denoising_loss(pipe.denoiser, clean, sigma, noise, classes), expected, rtol=1e-3, atol=1e-4
    )


def test_new_denoiser_is_the_best_one_of_a_standard_normal() -> None:
    denoiser = EmbeddingDenoiser(embedding_dim=4, num_classes=2, width=16, depth=1)
    noisy, sigma = torch.randn(3, 4), torch.tensor([0.2, 1.0, 5.0])
    torch.testing.assert_close(denoise(denoiser, noisy, sigma), noisy / (1 + sigma[:, None] ** 2))


def test_no_labels_means_the_null_row(pipe: EmbeddingDiffusionPipeline) -> None:
    sample, timestep = torch.randn(4, 6), torch.zeros(4)
    none = pipe.denoiser(sample, timestep)
    null = pipe.denoiser(sample, timestep, torch.full((4,), 3), torch.full((4,), 2))
    torch.testing.assert_close(none, null)
    assert not torch.allclose(none, pipe.denoiser(sample, timestep, torch.zeros(4, dtype=torch.long)))


def test_noise_is_standard_normal_and_a_function_of_the_seed() -> None:
    noise = noise_from_seeds(np.arange(4000), 50)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01 and abs((noise**4).mean() - 3) < 0.1
    correlation = np.corrcoef(noise, rowvar=False) - np.eye(50)
    assert np.abs(correlation).max() < 0.08  # dimensions
    assert np.abs(np.corrcoef(noise[:1000, :], noise[1:1001, :], rowvar=False)[:50, 50:]).max() < 0.15  # next seeds
    np.testing.assert_array_equal(noise_from_seeds(np.array([17]), 50)[0], noise[17])
    np.testing.assert_array_equal(noise_from_seeds(np.array([17]), 9)[0], noise[17, :9])


def test_a_cell_depends_on_its_own_seed_alone(pipe: EmbeddingDiffusionPipeline) -> None:
    labels, seeds = np.arange(700) % 3, np.arange(700) * 11
    domains = np.arange(700) % 2
    full = pipe(labels, domains, num_inference_steps=4, seeds=seeds).embeddings
    assert full.shape == (700, 6) and full.dtype == np.float32
    for rows in ([699], [3, 699, 512, 511], list(range(100, 700))):
        part = pipe(labels[rows], domains[rows], num_inference_steps=4, seeds=seeds[rows]).embeddings
        np.testing.assert_array_equal(part, full[rows])
    assert not np.array_equal(pipe(labels, domains, num_inference_steps=4, seeds=seeds + 1).embeddings, full)


def test_labels_seeds_and_generator(pipe: EmbeddingDiffusionPipeline) -> None:
    one = pipe(["blast", "monocyte"], "scanner b", 3, generator=torch.Generator().manual_seed(5))
    two = pipe([1, 2], [1, 1], 3, seeds=one.seeds)
    np.testing.assert_array_equal(one.embeddings, two.embeddings)
    assert list(two.class_labels) == ["blast", "monocyte"] and list(two.domain_labels) == ["scanner b"] * 2
    other = pipe([1, 2], None, 3, seeds=one.seeds)
    assert other.domain_labels is None and not np.array_equal(one.embeddings, other.embeddings)


def test_guidance_extrapolates_from_the_null_class(pipe: EmbeddingDiffusionPipeline) -> None:
    plain, guided = (
        pipe([0] * 5, seeds=range(5), num_inference_steps=3, guidance_scale=w).embeddings for w in (1.0, 2.0)
    )
    almost = pipe([0] * 5, seeds=range(5), num_inference_steps=3, guidance_scale=1.0 + 1e-7).embeddings
    np.testing.assert_allclose(almost, plain, rtol=1e-3, atol=1e-4)
    assert np.abs(guided - plain).max() > 1e-2


def test_bad_requests_are_refused_in_a_sentence(pipe: EmbeddingDiffusionPipeline) -> None:
    for arguments, message in [
        ((["basophil", "stone"],), "class_labels, row 1 holds 'stone', expected one of"),
        (([3],), "class_labels, row 0 holds 3"),
        (([],), "class_labels is empty"),
        (([0], ["moon"]), "domain_labels, row 0 holds 'moon'"),
        (([0, 1, 2], [0, 1]), "domain_labels has 2 entries, expected one or 3"),
        (([0], None, 0), "num_inference_steps is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipe(*arguments)
    with pytest.raises(ValueError, match="seeds has shape"):
        pipe([0, 1], seeds=[1])
    with pytest.raises(ValueError, match="seeds has shape .* type float64"):
        pipe([0, 1], seeds=[1.0, 2.0])
    for wrong in ([0, -1], np.array([0, 2**63], dtype=np.uint64)):  # the second would come back as a negative number
        with pytest.raises(ValueError, match=r"seeds run from .* expected whole numbers from 0 to 2\^63 - 1"):
            pipe([0, 1], seeds=wrong)
    for seed in (-1, 2**31):
        with pytest.raises(ValueError, match=rf"seed is {seed}, expected a whole number from 0"):
            denoising_error(pipe, np.zeros((2, 6)), None, seed=seed)


def test_saved_pipeline_gives_the_same_cells_in_a_fresh_process(pipe: EmbeddingDiffusionPipeline, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "model"
    pipe.save_pretrained(folder)
    card = write_model_card(folder, pipe, facts={"encoder": "morphometry"}, metrics={"balanced accuracy": 0.912})
    text = card.read_text()
    assert "| encoder | morphometry |" in text and "0.912" in text and "basophil, blast, monocyte" in text
    code = (
        "import sys, numpy as np, torch; torch.set_num_threads(int(sys.argv[2]))\n"
        "from cytolib.diffusion import EmbeddingDiffusionPipeline\n"
        "pipe = EmbeddingDiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "assert pipe.domain_names == ['scanner a', 'scanner b']\n"
        "out = pipe(['blast', 'basophil'], 'scanner b', 5, seeds=[7, 8])\n"
        "np.save(sys.argv[1] + '/out.npy', out.embeddings)\n"
    )
    arguments = [sys.executable, "-c", code, str(folder), str(torch.get_num_threads())]
    subprocess.run(arguments, check=True, capture_output=True, text=True)
    expected = pipe(["blast", "basophil"], "scanner b", 5, seeds=[7, 8]).embeddings
    np.testing.assert_array_equal(np.load(folder / "out.npy"), expected)
    assert not list(folder.rglob("*.bin")) and len(list(folder.rglob("*.safetensors"))) == 2


def test_card_wants_a_saved_pipeline(pipe: EmbeddingDiffusionPipeline, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match="no model_index.json; call pipe.save_pretrained"):
        write_model_card(tmp_path, pipe)


def test_trajectory_ends_in_the_sampled_cell(pipe: EmbeddingDiffusionPipeline) -> None:
    path = denoising_trajectory(pipe, ["blast"] * 2, seeds=[4, 5], num_inference_steps=6)
    assert path.samples.shape == path.denoised.shape == (6, 2, 6) and (np.diff(path.sigmas) < 0).all()
    expected = pipe(["blast"] * 2, seeds=[4, 5], num_inference_steps=6).embeddings
    np.testing.assert_allclose(path.embeddings, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        path.embeddings, path.denoised[-1], rtol=1e-3, atol=1e-3
    )  # the last step goes to sigma 0


def test_denoising_error_of_a_new_model_is_that_of_a_normal() -> None:
    X = np.random.default_rng(6).standard_normal((2000, 4))
    standardizer = EmbeddingStandardizer.fit(X)
    denoiser = EmbeddingDenoiser(embedding_dim=4, num_classes=3, width=16, depth=1)
    pipe = EmbeddingDiffusionPipeline.from_parts(denoiser, standardizer, NAMES)
    sigmas = np.array([0.1, 1.0, 10.0])
    error = denoising_error(pipe, X, np.zeros(2000, int), sigmas=sigmas)
    assert error.shape == (2000, 3)
    np.testing.assert_allclose(error.mean(axis=0), sigmas**2 / (1 + sigmas**2), rtol=0.05)
