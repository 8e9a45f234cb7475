"""Classifiers on cell embeddings."""
