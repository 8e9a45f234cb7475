"""DinoBloom (Koch et al., MICCAI 2024, arXiv 2404.05022): which sizes there are, and what its checkpoints hold.

DINOv2's Vision Transformers without registers, trained on at 224 px with more than 380 000 single blood and bone
marrow cells. Code: Apache-2.0 (github.com/marrlab/DinoBloom). Weights: zenodo.org/records/10908163, whose licence field
could not be established here; copies on the Hugging Face hub are marked Apache-2.0. Please cite the paper.

The hub copies' configuration says 518 px, DINOv2's size. Loaded as it says, the position table would be resampled from
16 x 16 to 37 x 37 and the network would see images of a size that it was never trained on. Here DinoBloom runs at
224 px, whatever a configuration says, and a table of another size is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ARCHITECTURES: dict[str, str] = {
    "dinobloom-s": "vit_small_patch14_dinov2",
    "dinobloom-b": "vit_base_patch14_dinov2",
    "dinobloom-l": "vit_large_patch14_dinov2",
    "dinobloom-g": "vit_giant_patch14_dinov2",
}
WIDTHS = {"dinobloom-s": 384, "dinobloom-b": 768, "dinobloom-l": 1024, "dinobloom-g": 1536}
IMAGE_SIZE = 224
POSITIONS = 1 + (IMAGE_SIZE // 14) ** 2  # CLS and 16 x 16 patches
RECORD = "https://zenodo.org/records/10908163/files"
OPTIONS = ("depth", "mean", "std", "interpolation")
_UNUSED = ("mask_token",)  # of the masked pre-training task
_HEADS = ("dino_head.", "ibot_head.")  # of the two pre-training losses


def published_file(name: str) -> str:
    """The file of an encoder's weights in the Zenodo record: ``DinoBloom-S.pth``."""
    return f"DinoBloom-{name[-1].upper()}.pth"


def url(name: str) -> str:
    """Where the authors published an encoder's weights."""
    return f"{RECORD}/{published_file(name)}?download=1"


def check_request(name: str, options: Mapping[str, str], image_size: int | None) -> None:
    """Refuse what would make another model of it: another image size, or an option that changes the architecture.

    Raises:
        ValueError: in one sentence.
    """
    if image_size not in (None, IMAGE_SIZE):
        raise ValueError(
            f"encoder {name!r}: image_size is {image_size}; DinoBloom was trained at {IMAGE_SIZE} px and has "
            f"{POSITIONS} positions: leave image_size out"
        )
    for option in options:
        if option not in OPTIONS:
            raise ValueError(f"encoder {name!r}: option {option!r} is unknown; expected one of {', '.join(OPTIONS)}")


def check_hub_config(name: str, weights: str, config: Mapping[str, Any]) -> None:
    """Refuse a hub repository of another architecture. Its input size is not believed, see above.

    Raises:
        ValueError: in one sentence.
    """
    found = str(config.get("architecture"))
    if found.split(".")[0] != ARCHITECTURES[name]:
        raise ValueError(
            f"weights {weights}: its config.json names the architecture {found!r}, encoder {name!r} expects "
            f"{ARCHITECTURES[name]!r}; name the copy of that size"
        )


def backbone(name: str, path: Path, found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The backbone's tensors under timm's names, from the published layout or a copy that has timm's names already.

    Published: ``{"teacher": {"backbone.<name>", "dino_head.…", "ibot_head.…"}}``. The heads and ``mask_token`` serve
    pre-training only and are dropped by name; nothing else is.

    Raises:
        ValueError: in one sentence, for a checkpoint that is no DinoBloom of this size at 224 px.
    """
    teacher = found.get("teacher", found)
    if not isinstance(teacher, Mapping):
        raise ValueError(f"{path}: its 'teacher' is a {type(teacher).__name__}; expected a dictionary of tensors")
    kept = {
        str(key).removeprefix("backbone."): value for key, value in teacher.items() if not str(key).startswith(_HEADS)
    }
    _check(name, path, kept)
    return {_timm_key(key): value for key, value in kept.items() if key not in _UNUSED}


def _check(name: str, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    file = published_file(name)
    shape: tuple[int, ...] = tuple(getattr(tensors.get("pos_embed"), "shape", ()))
    if "cls_token" not in tensors or len(shape) != 3:
        first = next(iter(tensors), "none")
        raise ValueError(
            f"{path}: no DinoBloom checkpoint, for it has no backbone with cls_token and pos_embed (its first key is "
            f"{first!r}); give {file}"
        )
    registers = tensors.get("register_tokens", tensors.get("reg_token"))
    if registers is not None:
        raise ValueError(f"{path}: it has {registers.shape[1]} register tokens and DinoBloom has none; give {file}")
    _, positions, width = shape
    if width != WIDTHS[name]:
        size = {width: encoder for encoder, width in WIDTHS.items()}.get(width)
        use = f"use encoder {size!r}, or give {file}" if size else f"give {file}"
        raise ValueError(f"{path}: its vectors are {width} wide, encoder {name!r} expects {WIDTHS[name]}; {use}")
    if positions != POSITIONS:
        side = 14 * round((positions - 1) ** 0.5)
        raise ValueError(
            f"{path}: its position table has {positions} entries ({side} px; plain DINOv2 has 1370, for 518 px), "
            f"DinoBloom's has {POSITIONS} ({IMAGE_SIZE} px); give {file}, or use encoder "
            f"{name.replace('dinobloom', 'dinov2')!r} for plain DINOv2"
        )


def _timm_key(key: str) -> str:
    """DINOv2's name of a tensor as timm has it: only the giant's SwiGLU differs.

    ``w12`` holds gate and value one above the other, in the order in which timm's ``fc1`` has them: gate first.
    """
    return key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
