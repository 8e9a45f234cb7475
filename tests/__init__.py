"""Tests of cytolib, its notebooks and its environment; `python -m tests` runs them all."""
