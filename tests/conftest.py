"""Fixtures for all tests. Nothing here needs a network."""

import os

# The tests' models are tiny; more threads only get into each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
