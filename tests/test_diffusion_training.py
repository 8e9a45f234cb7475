"""Training: exact resume, checkpoints that belong to their content, and a toy mixture that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cytolib.diffusion import EmbeddingDiffusionPipeline, TrainingStep, train
from cytolib.evaluate.fidelity import frechet_distance, real_floor
from cytolib.evaluate.memorisation import dcr_ratio

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


@pytest.mark.parametrize("stop", [4, 7, 11])
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop: int) -> None:
    X, y = toy()
    X_val, y_val = toy(seed=1)
    options = {**SMALL, "X_val": X_val, "y_val": y_val, "validate_every": 5}
    expected = finish(X, y, **options)
    for step in train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4):
        if step.step == stop:
            break
    torch.manual_seed(stop)  # whatever else draws from the global generator must not matter
    resumed = list(train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4))
    assert resumed[0].step == stop // 4 * 4 + 1
    assert (resumed[-1].loss, resumed[-1].validation_loss) == (expected.loss, expected.validation_loss)
    assert weights(resumed[-1].pipeline()) == weights(expected.pipeline())
    again = list(train(X, y, **options, checkpoint_dir=tmp_path, checkpoint_every=4))
    assert len(again) == 1 and weights(again[0].pipeline()) == weights(expected.pipeline())


@pytest.mark.parametrize("changed", [{"seed": 1}, {"learning_rate": 2e-3}, {"steps": 13}, {"class_names": NAMES[::-1]}])
def test_changed_argument_never_resumes(tmp_path: Path, changed: dict) -> None:
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    assert next(train(X, y, **{**SMALL, **changed}, checkpoint_dir=tmp_path)).step == 1


def test_changed_cell_never_resumes(tmp_path: Path) -> None:
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    X[5, 2] += 1e-3
    assert next(train(X, y, **SMALL, checkpoint_dir=tmp_path)).step == 1


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    X, y = toy()
    finish(X, y, **SMALL, checkpoint_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    other = torch.load(file, weights_only=True) | {"key": "0" * 64}
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable checkpoint .* delete it to train anew"):
        next(train(X, y, **SMALL, checkpoint_dir=tmp_path))
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


def test_domains_are_learned_and_named() -> None:
    X, y = toy()
    sites = np.where(np.arange(len(X)) % 2, "north", "south")
    pipe = finish(X, y, sites, **SMALL, domain_names=["north", "south"]).pipeline()
    assert pipe.domain_names == ["north", "south"] and pipe.denoiser.config.num_domains == 2


def test_bad_input_is_refused_before_the_first_step() -> None:
    X, y = toy()
    for arguments, options, message in [
        ((X, y[:-1]), {}, "y has shape .* expected 90 entries"),
        ((X, np.where(np.arange(90) == 4, "zz", y)), {}, "y, row 4 holds 'zz', expected one of"),
        ((X[:1], y[:1]), {}, "at least two cells"),
        ((X, y, y), {}, "domains and domain_names go together"),
        ((X, y), {"steps": 0}, "steps is 0"),
        ((X, y), {"X_val": X}, "X_val and y_val go together"),
        ((X, y), {"X_val": X[:, :3], "y_val": y}, "X_val has 3 dimensions"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(*arguments, **{**SMALL, **options})


def mixture(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five unequal classes in 8 dimensions, two of them bimodal, so that one Gaussian a class does not fit."""
    layout, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres = 4 * layout.standard_normal((5, 2, 8))
    y = rng.choice(5, size=n, p=[0.35, 0.25, 0.2, 0.12, 0.08])
    mode = np.where(y < 2, rng.integers(2, size=n), 0)
    return (centres[y, mode] + rng.standard_normal((n, 8))).astype(np.float32), y


def test_toy_mixture_is_learned_to_three_times_the_floor() -> None:
    X, y = mixture(2000, 0)
    test, _ = mixture(2000, 1)
    last = finish(
        X, y, class_names=list("abcde"), steps=600, batch_size=128, width=64, learning_rate=3e-3, depth=2, device="cpu"
    )
    synthetic = last.pipeline()(y, seeds=range(2000)).embeddings
    floor = real_floor(frechet_distance, X, test, 2000)
    assert frechet_distance(test, synthetic) <= 3 * floor
    assert dcr_ratio(synthetic, X, test) > 0.8
