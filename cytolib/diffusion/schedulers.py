"""Which of diffusers' schedulers can sample an embedding, and how the denoiser speaks to each of them.

A scheduler keeps its sample as scale * (y + sigma n). The denoiser estimates y from y + sigma n, whatever its
objective, so it serves them all: only the estimate has to be said in the scheduler's own prediction type.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler

SIGMA_MIN, SIGMA_MAX = 0.02, 40.0  # noise levels of sampling, for data of unit variance
EDM = (EDMDPMSolverMultistepScheduler, EDMEulerScheduler)  # sample = y + sigma n, own preconditioning
VARIANCE_PRESERVING = (DDIMScheduler, DPMSolverMultistepScheduler)  # sample = (y + sigma n) / sqrt(1 + sigma^2)
VARIANCE_EXPLODING = (HeunDiscreteScheduler,)  # sample = y + sigma n
FLOW = (FlowMatchEulerDiscreteScheduler,)  # sample = (1 - t) y + t n, sigma = t / (1 - t)
Scheduler = (
    EDMDPMSolverMultistepScheduler
    | EDMEulerScheduler
    | DDIMScheduler
    | DPMSolverMultistepScheduler
    | HeunDiscreteScheduler
    | FlowMatchEulerDiscreteScheduler
)
#: A variance-preserving process of 1,000 levels from sigma 0.01 to 157 (Ho et al. 2020), without diffusers' clipping.
_DISCRETE = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "v_prediction"}
SAMPLERS = ("dpm_solver", "euler", "heun", "ddim", "flow_euler")


def default_scheduler() -> EDMDPMSolverMultistepScheduler:
    """DPM-Solver++(2M) (Lu et al. 2022) on the noise levels of Karras et al."""
    return EDMDPMSolverMultistepScheduler(sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=1.0)


def make_scheduler(name: str) -> Scheduler:
    """A scheduler that fits embeddings, by the name of its solver.

    ``dpm_solver``: second-order multistep, the default. ``euler``: first order, on the same noise levels. ``heun``:
    second order, two network evaluations a step. ``ddim``: Song et al. 2021, eta = 0. ``flow_euler``: straight paths.
    """
    if name == "dpm_solver":
        return default_scheduler()
    if name == "euler":
        return EDMEulerScheduler(sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=1.0)
    if name == "heun":
        return HeunDiscreteScheduler(**_DISCRETE, use_karras_sigmas=True)
    if name == "ddim":
        return DDIMScheduler(**_DISCRETE, clip_sample=False, timestep_spacing="trailing")
    if name == "flow_euler":
        return FlowMatchEulerDiscreteScheduler()
    raise ValueError(f"sampler is {name!r}, expected one of {', '.join(SAMPLERS)}")


def check_scheduler(scheduler: object) -> None:
    """Refuse what breaks vectors: schedulers made for pixels, for another preconditioning, or with noise of their own.

    Raises:
        ValueError: in one sentence that names the setting and what to use.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    if fault := _fault(scheduler, config):
        raise ValueError(
            f"scheduler {name} has {fault}, which does not fit embeddings; use make_scheduler(name) with one of "
            f"{', '.join(SAMPLERS)}"
        )


def _fault(scheduler: object, config: dict) -> str | None:
    if not isinstance(scheduler, Scheduler):
        return "a process that this pipeline does not know"
    kind = config.get("prediction_type")
    if config.get("clip_sample"):
        return "clip_sample=True (it clips vectors to [-1, 1], as if they were pixels)"
    if config.get("thresholding"):
        return "thresholding=True (it clips vectors, as if they were pixels)"
    if isinstance(scheduler, EDM):
        if config["sigma_data"] != 1.0:
            return f"sigma_data={config['sigma_data']} (standardised vectors have 1.0)"
        return None if kind == "epsilon" else f"prediction_type={kind!r} (EDM's network output is called 'epsilon')"
    if isinstance(scheduler, FLOW):
        odd = [k for k in ("stochastic_sampling", "invert_sigmas", "use_dynamic_shifting") if config[k]]
        return f"{odd[0]}=True" if odd else None
    noiseless = config.get("rescale_betas_zero_snr") or config.get("beta_schedule") == "squaredcos_cap_v2"
    if kind == "epsilon" and noiseless:
        return "prediction_type='epsilon' where nothing of the cell is left at the first step (its estimate explodes)"
    if kind not in ("epsilon", "v_prediction", "sample"):
        return f"prediction_type={kind!r}"
    if config.get("use_flow_sigmas") or str(config.get("algorithm_type", "")).startswith("sde"):
        return "a process with noise of its own, or flow levels in a diffusion solver"
    return None


def noise_level(scheduler: Scheduler, step: int) -> tuple[float, float]:
    """(sigma, scale) of the sample before a step: sample = scale * (y + sigma n)."""
    if isinstance(scheduler, FLOW):
        t = min(float(scheduler.sigmas[step]), SIGMA_MAX / (1 + SIGMA_MAX))  # at t = 1 sigma would be infinite
        return t / (1 - t), 1 - t
    if isinstance(scheduler, DDIMScheduler):
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])])
        return float(np.sqrt((1 - kept) / kept)), float(np.sqrt(kept))
    sigma = float(scheduler.sigmas[step])
    return sigma, float(1 / np.sqrt(1 + sigma**2)) if isinstance(scheduler, VARIANCE_PRESERVING) else 1.0


def as_prediction(scheduler: Scheduler, noisy: torch.Tensor, sigma: float, clean: torch.Tensor) -> torch.Tensor:
    """The estimate ``clean`` (B, K) of ``noisy`` = y + sigma n, as the network output that the scheduler expects."""
    unit = (1 + sigma**2) ** 0.5
    if isinstance(scheduler, EDM):
        return (clean - noisy / unit**2) * (unit / sigma)  # F of EDM eq. 7
    if isinstance(scheduler, FLOW):
        return (noisy - clean) / sigma - clean  # velocity n - y
    kind = scheduler.config["prediction_type"]
    if kind == "sample":
        return clean
    noise = (noisy - clean) / sigma
    return noise if kind == "epsilon" else (noise - sigma * clean) / unit  # v of Salimans & Ho 2022, eq. 11
