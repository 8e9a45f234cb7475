"""Evaluation: result tables, fidelity, memorisation, utility, and the intervals around them."""
