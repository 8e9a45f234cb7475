"""The model card: what a saved diffusion model was trained on, how, and what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytolib.diffusion.pipeline import EmbeddingDiffusionPipeline
from cytolib.run import atomic_path

_CARD = """---
library_name: diffusers
tags: [embedding-diffusion, haematology, cytomorphology]
---
# {title}

Class-conditional diffusion model of single-cell embeddings: it draws vectors of {dimensions} dimensions, not images.

| | |
|---|---|
{facts}

## Classes and domains

Classes: {classes}.

Domains: {domains}.

## Use

```python
from cytolib.diffusion import EmbeddingDiffusionPipeline

pipe = EmbeddingDiffusionPipeline.from_pretrained("this folder")
cells = pipe(["{first}"] * 100, seeds=range(100)).embeddings  # (100, {dimensions}) float32
```

The vectors live in the space of the encoder named above and mean nothing beside those of another.

## Measured

{metrics}

## Limits

For research and teaching; not a medical device. Synthetic cells carry the biases of the training cells, and rare
classes rest on few of them. Distance to the closest training cell shows that cells are not copied; it does not show
that the training cells are anonymous.
"""


def write_model_card(
    folder: str | Path,
    pipe: EmbeddingDiffusionPipeline,
    *,
    title: str = "Embedding diffusion model of blood cells",
    facts: Mapping[str, object] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write ``README.md`` into a folder that ``pipe.save_pretrained`` filled.

    Args:
        facts: rows of the first table, such as encoder, weights' sha256, data set, split, licence, steps, seed.
        metrics: name to value, on cells the model was not trained on.
    """
    path = Path(folder) / "README.md"
    if not (path.parent / "model_index.json").is_file():
        raise FileNotFoundError(f"{path.parent}: no model_index.json; call pipe.save_pretrained({str(folder)!r}) first")
    config, dimensions = pipe.denoiser.config, pipe.standardizer.config["embedding_dim"]
    weights = sum(p.numel() for p in pipe.denoiser.parameters())
    table = {
        "network": f"adaLN-Zero MLP, width {config['width']}, depth {config['depth']}, {weights:,} weights",
        "space": f"{dimensions} dimensions, {pipe.standardizer.output_dim} modelled",
        "sampler": type(pipe.scheduler).__name__,
        **(facts or {}),
    }
    measured = "\n".join(f"| {name} | {value:.4g} |" for name, value in (metrics or {}).items())
    text = _CARD.format(
        title=title,
        dimensions=dimensions,
        facts="\n".join(f"| {name} | {value} |" for name, value in table.items()),
        classes=", ".join(pipe.class_names),
        domains=", ".join(pipe.domain_names) or "none",
        first=pipe.class_names[0],
        metrics=f"| metric | value |\n|---|---|\n{measured}" if measured else "Nothing yet.",
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
