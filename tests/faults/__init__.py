"""The fault suite: what breaks pipelines in real life, played on the real chain by ``python -m tests.faults``."""
