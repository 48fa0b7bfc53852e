"""Paths of the embedded demo model: a base of 2.2 M parameters and an adapter with three dimensions."""

from pathlib import Path

DEMO_BASE = Path(__file__).parent / "demo" / "base"
DEMO_ADAPTER = Path(__file__).parent / "demo" / "adapter"
