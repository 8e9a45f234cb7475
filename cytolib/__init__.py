"""Single blood and bone-marrow cells: images, embeddings, diffusion, synthetic cells, classifiers and figures."""

__version__ = "0.1.0"
