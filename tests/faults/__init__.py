"""The fault suite: what breaks a pipeline in real life, played on the real chain. ``python -m tests.faults`` runs it."""
