"""DinoBloom's CLS embedding by numpy alone, and the golden file that the encoders are held against.

    python -m tests.golden.make_dinobloom            writes tests/golden/dinobloom.json (a few seconds)
    python -m tests.golden.make_dinobloom l 24       prints one vector at a depth of one's choice, as JSON

The architecture is written down from the papers: DINOv2 (Oquab et al. 2024, arXiv 2304.07193) on the Vision
Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), with LayerScale (Touvron et al. 2021, arXiv 2103.17239) and,
in the giant, SwiGLU (Shazeer 2020, arXiv 2002.05202); DinoBloom (Koch et al. 2024, arXiv 2404.05022) changes only
weights and size. No torch, no timm: whoever changes how weights are loaded cannot change these numbers with it.

The weights are no one's: they follow from a seed, through PCG64's raw bits, whose stream numpy guarantees. Their
scales are chosen so that every part of the network matters. The residual stream stays small (about 0.1), so that
LayerNorm's epsilon can be seen; LayerScale is between 0.1 and 1; no bias is zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tensors = Callable[[str], Array]

GOLDEN = Path(__file__).with_name("dinobloom.json")
SEED = 20240405
SIZE, PATCH, POSITIONS = 224, 14, 257
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
EPSILON = 1e-6
SHAPES = {"s": (384, 6), "b": (768, 12), "l": (1024, 16), "g": (1536, 24)}  # width, heads
FULL_DEPTH = {"s": 12, "b": 12, "l": 24, "g": 40}
# Full depth for the small ones; the large ones at full width with fewer blocks, so that a test can afford them.
GOLDEN_DEPTH = {"s": 12, "b": 12, "l": 3, "g": 2}


def picture() -> NDArray[np.uint8]:
    """The input, (224, 224, 3) uint8: bands and a disc, by integer arithmetic only."""
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = (x - 100) ** 2 + (y - 120) ** 2 < 60**2
    bands = np.stack([3 * x + y, x * y // 16, (x + 5 * y) // 2], axis=-1) % 256
    return np.where(disc[..., None], bands // 2, 255 - bands // 4).astype(np.uint8)


def shapes(size: str, depth: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the backbone's tensors, as DinoBloom's checkpoints name them."""
    width, _ = SHAPES[size]
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, POSITIONS, width)
    yield "mask_token", (1, width)
    yield "patch_embed.proj.weight", (width, 3, PATCH, PATCH)
    yield "patch_embed.proj.bias", (width,)
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8 if size == "g" else 4 * width
    first, second = ("w12", "w3") if size == "g" else ("fc1", "fc2")
    inner = 2 * hidden if size == "g" else hidden
    for block in range(depth):
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {f"mlp.{first}": (inner, width), f"mlp.{second}": (width, hidden)}
        for layer, shape in layers.items():
            yield f"blocks.{block}.{layer}.weight", shape
            yield f"blocks.{block}.{layer}.bias", shape[:1]
        for layer in ("norm1", "norm2"):
            yield f"blocks.{block}.{layer}.weight", (width,)
            yield f"blocks.{block}.{layer}.bias", (width,)
        for layer in ("ls1", "ls2"):
            yield f"blocks.{block}.{layer}.gamma", (width,)
    yield "norm.weight", (width,)
    yield "norm.bias", (width,)


def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One tensor from the seed and its name: uniform, at a scale that belongs to its kind."""
    seed = int.from_bytes(hashlib.sha256(f"{SEED} {name} {shape}".encode()).digest()[:8], "big")
    bits = np.random.PCG64(seed).random_raw(math.prod(shape))
    uniform = ((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(shape)  # [0, 1), exact
    if name.endswith("gamma"):
        return np.float32(0.1) + np.float32(0.9) * uniform
    unit = (2 * uniform - 1) * np.float32(3**0.5)  # mean 0, variance 1
    writes = any(part in name for part in ("patch_embed", "attn.proj", "fc2", "w3"))  # into the residual stream
    if "norm" in name:
        return np.float32(1 if name.endswith("weight") else 0) + np.float32(0.25) * unit
    if name.endswith("weight"):
        return np.float32((0.1 if writes else 1.5) / math.prod(shape[1:]) ** 0.5) * unit
    return np.float32(0.2 if name.endswith("bias") and not writes else 0.05) * unit


def checkpoint(size: str, depth: int) -> dict[str, dict[str, NDArray[np.float32]]]:
    """What a DinoBloom file holds: the teacher's backbone beside two heads that an embedding does not need."""
    teacher = {f"backbone.{name}": draw(name, shape) for name, shape in shapes(size, depth)}
    for head in ("dino_head", "ibot_head"):
        teacher[f"{head}.mlp.0.weight"] = draw(f"{head}.mlp.0.weight", (8, SHAPES[size][0]))
        teacher[f"{head}.last_layer.weight_v"] = draw(f"{head}.last_layer.weight_v", (16, 8))
    return {"teacher": teacher}


def cls_embedding(size: str, depth: int) -> Array:
    """The CLS vector (D,) of ``picture()`` in float64, after the final norm."""
    width, heads = SHAPES[size]
    known = dict(shapes(size, depth))

    def get(name: str) -> Array:
        return draw(name, known[name]).astype(np.float64)

    pixels = (picture().astype(np.float64) / 255 - MEAN) / STD  # (row, column, channel)
    side = SIZE // PATCH
    cut = pixels.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 4, 1, 3)  # patch row, patch column, c, y, x
    patches = cut.reshape(side * side, -1) @ get("patch_embed.proj.weight").reshape(width, -1).T
    tokens = np.concatenate([get("cls_token")[0], patches + get("patch_embed.proj.bias")]) + get("pos_embed")[0]
    for block in range(depth):

        def part(name: str, prefix: str = f"blocks.{block}.") -> Array:
            return get(prefix + name)

        tokens = tokens + part("ls1.gamma") * attention(layer_norm(tokens, part, "norm1"), part, heads)
        feed_forward = swiglu if size == "g" else mlp
        tokens = tokens + part("ls2.gamma") * feed_forward(layer_norm(tokens, part, "norm2"), part)
    return layer_norm(tokens, get, "norm")[0]


def linear(x: Array, get: Tensors, name: str) -> Array:
    return x @ get(f"{name}.weight").T + get(f"{name}.bias")


def layer_norm(x: Array, get: Tensors, name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return centred / deviation * get(f"{name}.weight") + get(f"{name}.bias")


def attention(x: Array, get: Tensors, heads: int) -> Array:
    """Multi-head self-attention: queries, keys and values stand in this order in one matrix, head after head."""
    n, width = x.shape
    q, k, v = linear(x, get, "attn.qkv").reshape(n, 3, heads, width // heads).transpose(1, 2, 0, 3)
    logits = q @ k.transpose(0, 2, 1) / math.sqrt(width // heads)
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    return linear((share @ v).transpose(1, 0, 2).reshape(n, width), get, "attn.proj")


def mlp(x: Array, get: Tensors) -> Array:
    """Two layers with the exact GELU, x * Phi(x)."""
    hidden = linear(x, get, "mlp.fc1")
    phi = np.fromiter(map(math.erf, (hidden / math.sqrt(2)).ravel()), np.float64, hidden.size).reshape(hidden.shape)
    return linear(hidden * (1 + phi) / 2, get, "mlp.fc2")


def swiglu(x: Array, get: Tensors) -> Array:
    """The first half of w12, through SiLU, gates the second."""
    gate, value = np.split(linear(x, get, "mlp.w12"), 2, axis=-1)
    return linear(gate / (1 + np.exp(-gate)) * value, get, "mlp.w3")


def main(arguments: list[str]) -> None:
    if arguments:
        size, depth = arguments[0], int(arguments[1])
        print(json.dumps(cls_embedding(size, depth).tolist()))
        return
    vectors = {size: [round(float(v), 9) for v in cls_embedding(size, GOLDEN_DEPTH[size])] for size in SHAPES}
    head = {"seed": SEED, "input": "make_dinobloom.picture()", "depth": GOLDEN_DEPTH, "full_depth": FULL_DEPTH}
    lines = [f'"{size}": {json.dumps(vector)}' for size, vector in vectors.items()]
    text = json.dumps(head)[:-1] + ',\n"cls": {\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    GOLDEN.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
