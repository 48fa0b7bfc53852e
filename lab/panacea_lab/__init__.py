"""The laboratory: benchmarks, the demo model's world and its making, and the comparison with the paper."""
