"""Training: what a batch holds, exact resume, early stopping, unlabelled cells, and a toy mixture that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers.training_utils import EMAModel

from cytolib.diffusion import EmbeddingDiffusionPipeline, TrainingStep, sampling_sigmas, train
from cytolib.diffusion.batches import class_probabilities, cumulative_probabilities, draw_batch, unlabelled_rows
from cytolib.diffusion.preconditioning import NOISE_DISTRIBUTION, OBJECTIVES, Objective, denoise, denoising_loss
from cytolib.diffusion.trainer import ema_weight
from cytolib.diffusion.validation import mean_by_class, validation_levels, validation_losses
from cytolib.evaluate.fidelity import real_floor
from cytolib.evaluate.memorisation import dcr_ratio
from cytolib.evaluate.moments import frechet_distance

NAMES = ["a", "b", "c"]
SMALL = {"class_names": NAMES, "steps": 12, "batch_size": 16, "width": 16, "depth": 1, "device": "cpu"}


def toy(n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return (rng.standard_normal((n, 5)) + 3 * y[:, None]).astype(np.float32), np.array(NAMES)[y]


def finish(*args, **kwargs) -> TrainingStep:  # type: ignore[no-untyped-def]
    *_, last = train(*args, **kwargs)
    return last


def weights(pipe: EmbeddingDiffusionPipeline) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in pipe.denoiser.parameters())


def sites(n: int = 90) -> np.ndarray:
    return np.where(np.arange(n) % 3, "north", "south")


SITES = {"domain_names": ["north", "south"], "domains": sites()}
SEEN = toy(40, seed=2)[0] - 4
OPTIONS: dict[str, dict] = {
    "plain": {},
    "flow_matching": {"objective": "flow_matching"},
    "dropout": {"dropout": 0.3},
    "balanced": {"batches": "balanced"},
    "square_root, standardised": {"batches": "square_root", "space": "standardise"},
    "domains": SITES | {"domains_val": sites()},
    "unlabelled": {"X_unlabelled": SEEN, "unlabelled_share": 0.4},
    "unlabelled, domains": SITES
    | {"domains_val": sites(), "X_unlabelled": SEEN, "domains_unlabelled": sites(40)}
    | {"batches": "balanced", "objective": "flow_matching", "patience": 5},
}


@pytest.mark.parametrize("stop", [4, 7, 11])
@pytest.mark.parametrize("option", OPTIONS)
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path: Path, option: str, stop: int) -> None:
    X, y = toy()
    X_val, y_val = toy(seed=1)
    options = {**SMALL, "X_val": X_val, "y_val": y_val, "validate_every": 5, **OPTIONS[option]}
    expected = finish(X, y, **options)
    for step in train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4):
        if step.step == stop:
            break
    torch.manual_seed(stop)  # whatever else draws from the global generator must not matter
    resumed = list(train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4))
    assert resumed[0].step == stop // 4 * 4 + 1
    assert resumed[-1] == expected  # every number, by class too
    assert weights(resumed[-1].pipeline()) == weights(expected.pipeline())
    again = list(train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4))
    assert again == [expected] and weights(again[0].pipeline()) == weights(expected.pipeline())


def long_tail(n: int, rare: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [n, n, rare])
    return (rng.standard_normal((len(y), 5)) + 3 * y[:, None]).astype(np.float32), np.array(NAMES)[y]


TAIL, TAIL_VAL = long_tail(60, 3, 0), long_tail(45, 6, 1)
#: Fast weights on three cells of class c: its validation loss rises soon, while that of all cells falls on.
HASTY = {
    "class_names": NAMES, "steps": 240, "width": 32, "depth": 1, "learning_rate": 3e-2, "batch_size": 16,
    "ema_decay": 0.8, "device": "cpu", "X_val": TAIL_VAL[0], "y_val": TAIL_VAL[1], "validate_every": 10,
}  # fmt: skip


@pytest.mark.parametrize("stop", [13, 31, 49, 50])
def test_early_stopping_resumes_bit_for_bit(tmp_path: Path, stop: int) -> None:
    expected = finish(*TAIL, **HASTY, patience=3)
    assert (expected.best_step, expected.step, expected.stopped) == (20, 50, True)
    for step in train(*TAIL, **HASTY, patience=3, checkpoint_dir=tmp_path, checkpoint_every=7):
        if step.step == stop:
            break
    resumed = list(train(*TAIL, **HASTY, patience=3, checkpoint_dir=tmp_path, checkpoint_every=7))
    assert resumed[0].step == (stop // 7 * 7 + 1 if stop < 50 else 50)
    assert resumed[-1] == expected and weights(resumed[-1].pipeline()) == weights(expected.pipeline())


def test_early_stopping_watches_the_mean_over_classes_and_keeps_its_best_weights() -> None:
    kept, cells, classes = {}, {}, {}
    for step in train(*TAIL, **HASTY, patience=3):
        if step.validation_loss is not None and step.validation_loss_by_class is not None:
            kept[step.step], cells[step.step] = weights(step.pipeline()), step.validation_loss
            classes[step.step] = np.mean(list(step.validation_loss_by_class.values()))
            assert step.best_step == min(classes, key=classes.__getitem__)
    assert step.stopped and step.step == step.best_step + 3 * 10
    assert min(cells, key=cells.__getitem__) != step.best_step  # a mean over cells would have gone on
    assert weights(step.pipeline()) == kept[step.best_step]
    assert len(set(kept.values())) == len(kept) - 1  # until the last step, the weights of the step itself


def test_patience_that_never_ends_still_gives_the_best_weights() -> None:
    patient, plain = finish(*TAIL, **HASTY, patience=99), finish(*TAIL, **HASTY)
    assert not patient.stopped and patient.best_step is not None and patient.best_step < patient.step == 240
    assert plain.best_step is None and plain.validation_loss == patient.validation_loss
    assert weights(plain.pipeline()) != weights(patient.pipeline())


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"learning_rate": 2e-3}, {"steps": 13}, {"class_names": NAMES[::-1]}]
    + [
        {"objective": "flow_matching"},
        {"dropout": 0.1},
        {"batches": "balanced"},
        {"space": "none"},
        {"X_unlabelled": SEEN},
    ],
)
def test_changed_argument_never_resumes(tmp_path: Path, changed: dict) -> None:
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    assert next(train(X, y, **{**SMALL, **changed}, checkpoint_dir=tmp_path)).step == 1


def test_changed_cell_never_resumes(tmp_path: Path) -> None:
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    X[5, 2] += 1e-3
    assert next(train(X, y, **SMALL, checkpoint_dir=tmp_path)).step == 1
    finish(X, y, **SMALL, X_unlabelled=SEEN, checkpoint_dir=tmp_path)
    assert next(train(X, y, **SMALL, X_unlabelled=SEEN + 1, checkpoint_dir=tmp_path)).step == 1


def test_damaged_checkpoint_is_not_taken(tmp_path: Path) -> None:
    """Truncated, and with one bit turned in the weights, which ``torch.load`` would not notice."""
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    other = torch.load(file, weights_only=True) | {"key": "0" * 64}
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:1000], bytes(flipped), b""):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="the checkpoint is damaged .* training begins anew"):
            assert next(train(X, y, **SMALL, checkpoint_dir=tmp_path)).step == 1
    torch.save(other, file)
    with pytest.raises(ValueError, match="a checkpoint of other data or arguments"):
        next(train(X, y, **SMALL, checkpoint_dir=tmp_path))


def test_seed_decides_and_global_generator_does_not() -> None:
    X, y = toy()
    torch.manual_seed(1)
    one = weights(finish(X, y, **SMALL).pipeline())
    torch.manual_seed(2)
    assert weights(finish(X, y, **SMALL).pipeline()) == one
    assert weights(finish(X, y, **{**SMALL, "seed": 1}).pipeline()) != one


def test_training_leaves_the_callers_generator_alone() -> None:
    before = torch.get_rng_state()
    finish(*toy(), **SMALL, X_val=SEEN, y_val=[0] * len(SEEN))
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_report_and_their_pipeline() -> None:
    X, y = toy()
    steps = []
    for step in train(X, y, **SMALL, X_val=X, y_val=y, validate_every=6):
        steps.append(step)
    assert [s.step for s in steps] == list(range(1, 13))
    assert [s.step for s in steps if s.validation_loss is not None] == [6, 12]
    assert steps[-1].learning_rate < steps[3].learning_rate
    with pytest.raises(RuntimeError, match="weights of step 3 are gone"):
        steps[2].pipeline()


def test_history_is_whole_after_a_resume(tmp_path: Path) -> None:
    X, y = toy()
    options = {**SMALL, "X_val": X, "y_val": y, "validate_every": 5, "checkpoint_dir": tmp_path, "checkpoint_every": 4}
    for step in train(X, y, **options):
        if step.step == 7:
            assert len(step.history) == 7 and set(step.history_by_class["step"]) == {5}
            break
    resumed = finish(X, y, **options)
    whole = finish(X, y, **{**options, "checkpoint_dir": None})
    pd.testing.assert_frame_equal(resumed.history, whole.history)
    pd.testing.assert_frame_equal(resumed.history_by_class, whole.history_by_class)
    assert resumed.resumed_from_step == 4 and whole.resumed_from_step == 0
    assert finish(X, y, **options).resumed_from_step == 12  # nothing was left to do
    history = whole.history
    assert history["step"].tolist() == list(range(1, 13)) and history["loss"].iloc[-1] == whole.loss
    assert history.dropna()["step"].tolist() == [5, 10, 12]
    assert history["validation_loss"].iloc[-1] == whole.validation_loss
    last = whole.history_by_class.query("step == 12").set_index("label")["loss"].to_dict()
    assert last == whole.validation_loss_by_class


def test_domains_are_learned_and_named() -> None:
    X, y = toy()
    pipe = finish(X, y, **SMALL, **SITES).pipeline()
    assert pipe.domain_names == ["north", "south"] and pipe.denoiser.config.num_domains == 2


def test_bad_input_is_refused_before_the_first_step() -> None:
    X, y = toy()
    for arguments, options, message in [
        ((X, y[:-1]), {}, "y has shape .* expected 90 entries"),
        ((X, np.where(np.arange(90) == 4, "zz", y)), {}, "y, row 4 holds 'zz', expected one of"),
        ((X[:1], y[:1]), {}, "at least two cells"),
        ((X, y, y), {}, "domains and domain_names go together"),
        ((X, y), {"class_names": ["a", "b", "c", "b"]}, r"class_names holds \['b'\] more than once"),
        ((X, y), {"steps": 0}, "steps is 0"),
        ((X, y), {"seed": -1}, "seed is -1, expected a whole number of at least 0"),
        ((X, y), {"X_val": X}, "X_val and y_val go together"),
        ((X, y), {"X_val": X[:, :3], "y_val": y}, "X_val has 3 dimensions"),
        ((X, y), {"objective": "ddpm"}, "objective is 'ddpm', expected one of"),
        ((X, y), {"batches": "fair"}, "batches is 'fair', expected one of"),
        ((X, y), {"space": "white"}, "space is 'white', expected one of"),
        ((X, y), {"learning_rate": -1.0}, "learning_rate is -1.0, expected a number between 0 and inf"),
        ((X, y), {"sigma_std": 0}, "sigma_std is 0"),
        ((X, y), {"label_dropout": 1.5}, "label_dropout is 1.5, expected a number from 0 to 1"),
        ((X, y), {"patience": 2}, "patience is 2, but there are no validation cells"),
        ((X, y), {"patience": 0, "X_val": X, "y_val": y}, "patience is 0, expected a whole number"),
        ((X, y), {"X_unlabelled": X[:, :2]}, "X_unlabelled has 2 dimensions, expected those of X, 5"),
        ((X, y), {"X_unlabelled": X, "unlabelled_share": 1.0}, "unlabelled_share is 1.0, expected a number between"),
        ((X, y), {"X_unlabelled": X, "unlabelled_share": 0.01}, "less than one cell of a batch of 16"),
        ((X, y), {"X_unlabelled": X, "domains_unlabelled": y}, "domains_unlabelled given, but no domain_names"),
        ((X, y), {"domains_unlabelled": y}, "domains_unlabelled given without X_unlabelled"),
        ((X, y), SITES | {"X_unlabelled": X, "domains_unlabelled": y}, "domains_unlabelled, row 0 holds"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(*arguments, **{**SMALL, **options})


def test_divergence_is_said_and_not_trained_on() -> None:
    X, y = toy()
    with pytest.raises(RuntimeError, match="the loss of step 1 is (inf|nan), .* check the scale of X in space 'none'"):
        finish(X * np.float32(1e25), y, **SMALL, space="none")


def draw(step: int = 0, seed: int = 3, **options):  # type: ignore[no-untyped-def]
    fixed = {"batch_size": 6000, "dimensions": 2, "cells": 112, "sigma_mean": -0.4, "sigma_std": 1.2}
    return draw_batch(seed, step, **{**fixed, "label_dropout": 0.1, **options})


def test_natural_batches_are_uniform_draws_of_the_step() -> None:
    batch, rng = draw(7), np.random.default_rng((3, 7))
    np.testing.assert_array_equal(batch.rows, rng.integers(112, size=6000))
    np.testing.assert_array_equal(batch.sigma, np.exp(-0.4 + 1.2 * rng.standard_normal(6000)).astype(np.float32))
    np.testing.assert_array_equal(batch.noise, rng.standard_normal((6000, 2), dtype=np.float32))
    np.testing.assert_array_equal(batch.dropped, rng.random((2, 6000)) < 0.1)
    assert not np.array_equal(draw(8).rows, batch.rows) and not np.array_equal(draw(7, 4).rows, batch.rows)


@pytest.mark.parametrize(
    ("batches", "expected"), [("natural", [100, 0, 9, 1]), ("balanced", [1, 0, 1, 1]), ("square_root", [10, 0, 3, 1])]
)
def test_batches_hold_each_class_as_often_as_they_say(batches: str, expected: list[int]) -> None:
    classes = np.random.default_rng(0).permutation(np.repeat([0, 2, 3], [100, 9, 1]))
    share = np.array(expected) / sum(expected)
    np.testing.assert_allclose(class_probabilities(classes, batches), share)
    cumulative = cumulative_probabilities(classes, batches)
    rows = draw(cells=len(classes), cumulative=cumulative).rows
    counts = np.bincount(classes[rows], minlength=4)
    assert np.all(np.abs(counts - 6000 * share) <= 4.5 * np.sqrt(6000 * share * (1 - share)))
    cells = np.bincount(rows, minlength=len(classes))[classes == 2]  # within a class, cells are alike
    assert np.all(np.abs(cells - counts[2] / 9) <= 4.5 * np.sqrt(counts[2] / 9))


def test_a_share_of_the_batch_is_unlabelled() -> None:
    assert [unlabelled_rows(100, share) for share in (0.29, 0.5, 0.999, 0.001)] == [29, 50, 99, 0]
    rows = draw(unlabelled_cells=50, unlabelled_rows=2000).rows
    assert len(rows) == 6000 and rows[:4000].max() == 111 and rows[4000:].min() == 112 and rows.max() == 161


def test_unlabelled_cells_have_the_null_class_and_the_null_domain_unless_known() -> None:
    X, y = toy()
    for known, expected in ((None, [2] * 40), (sites(40), np.where(sites(40) == "north", 0, 1))):
        step = next(train(X, y, **SMALL, **SITES, X_unlabelled=SEEN, domains_unlabelled=known))
        _, classes, domains = step._trainer.cells
        assert classes[:90].max() == 2 and classes[90:].tolist() == [3] * 40
        assert domains is not None and domains[90:].tolist() == list(expected) and domains[:90].max() == 1


def test_unlabelled_cells_shape_the_unconditional_model_and_not_the_classes() -> None:
    X, y = long_tail(100, 100, 0)
    unlabelled = np.random.default_rng(1).standard_normal((500, 5)).astype(np.float32) - 6
    pipe = finish(
        X, y, class_names=NAMES, steps=250, batch_size=64, width=32, depth=1, learning_rate=1e-2, label_dropout=0.0,
        device="cpu", X_unlabelled=unlabelled, unlabelled_share=0.25,
    ).pipeline()  # fmt: skip
    # statistics of what a batch holds: 3 labelled cells for 1 unlabelled one
    np.testing.assert_allclose(pipe.standardizer.mean, 0.75 * X.mean(0) + 0.25 * unlabelled.mean(0), rtol=1e-4)
    sigma = torch.full((200,), 5.0)  # so noisy that D(x; sigma) is nearly the mean of the condition
    noisy = 5 * torch.randn(200, pipe.standardizer.output_dim, generator=torch.Generator().manual_seed(0))

    def expected_cell(label: int | None) -> np.ndarray:
        labels = None if label is None else torch.full((200,), label)
        with torch.no_grad():
            return pipe.standardizer.inverse_transform(denoise(pipe.denoiser, noisy, sigma, labels)).numpy().mean(0)

    np.testing.assert_allclose(expected_cell(None), -6, atol=0.8)
    for label in range(3):
        np.testing.assert_allclose(expected_cell(label), 3 * label, atol=0.8)


def test_running_mean_is_that_of_diffusers() -> None:
    draws = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    theirs = EMAModel([torch.nn.Parameter(draws[0])], decay=0.9, use_ema_warmup=True, power=3 / 4)
    ours = draws[0].clone()
    for step in range(1, 30):
        theirs.step([torch.nn.Parameter(draws[step])])
        ours.lerp_(draws[step], ema_weight(step, 0.9))
        torch.testing.assert_close(ours, theirs.shadow_params[0])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_covers_the_noise_levels_of_the_sampler(objective: Objective) -> None:
    mean, std = NOISE_DISTRIBUTION[objective]
    for steps in (18, 1000):
        distance = np.abs(np.log(sampling_sigmas(steps)) - mean) / std
        assert np.mean(distance > 4) < 0.01 and np.mean(distance < 2) > 0.4  # all of them seen, many often
    assert np.all(np.diff(validation_levels(mean, std)) > 0)
    np.testing.assert_allclose(np.log(validation_levels(mean, std)).mean(), mean, atol=1e-9)


def test_validation_loss_is_the_loss_of_fixed_levels_and_noise_by_class() -> None:
    X, y = toy()
    X_val, y_val = toy(600, seed=1)
    y_val[y_val == "b"] = "c"
    last = finish(X, y, **SMALL, X_val=X_val, y_val=y_val)
    pipe, classes = last.pipeline(), torch.from_numpy(np.searchsorted(NAMES, y_val))
    Z, levels = pipe.standardizer.transform(torch.from_numpy(X_val)), validation_levels(-0.4, 1.2)
    losses = validation_losses(pipe.denoiser, Z, classes, None, levels)
    assert last.validation_loss == losses.mean()
    assert last.validation_loss_by_class == mean_by_class(losses, classes.numpy(), NAMES)
    assert list(last.validation_loss_by_class) == ["a", "c"]
    np.testing.assert_allclose(last.validation_loss_by_class["c"], losses[y_val == "c"].mean())
    # in expectation over noise it is the denoising loss of the class
    torch.manual_seed(0)
    rows = np.flatnonzero(y_val == "c").repeat(40)
    means = []
    with torch.no_grad():
        for level in levels:
            sigma, noise = torch.full((len(rows),), level, dtype=torch.float32), torch.randn(len(rows), Z.shape[1])
            means.append(denoising_loss(pipe.denoiser, Z[rows], sigma, noise, classes[rows]).mean())
    np.testing.assert_allclose(last.validation_loss_by_class["c"], np.mean(means), rtol=0.1)


def mixture(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five unequal classes in 8 dimensions, two of them bimodal, so that one Gaussian a class does not fit."""
    layout, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres = 4 * layout.standard_normal((5, 2, 8))
    y = rng.choice(5, size=n, p=[0.35, 0.25, 0.2, 0.12, 0.08])
    mode = np.where(y < 2, rng.integers(2, size=n), 0)
    return (centres[y, mode] + rng.standard_normal((n, 8))).astype(np.float32), y


@pytest.mark.parametrize("options", [{}, {"objective": "flow_matching"}])
def test_toy_mixture_is_learned_to_three_times_the_floor(options: dict) -> None:
    X, y = mixture(2000, 0)
    test, _ = mixture(2000, 1)
    last = finish(
        X, y, class_names=list("abcde"), steps=600, batch_size=128, width=64, depth=2, device="cpu", **options
    )
    assert last.pipeline().denoiser.config["objective"] == options.get("objective", "edm")
    synthetic = last.pipeline()(y, seeds=range(2000)).embeddings
    floor = real_floor(frechet_distance, X, test, 2000)
    assert frechet_distance(test, synthetic) <= 3 * floor
    assert dcr_ratio(synthetic, X, test) > 0.8
