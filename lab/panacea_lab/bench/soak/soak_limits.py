"""Thresholds of the soak's checks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SoakLimits:
    """Thresholds of the checks. What has to be given back exactly (descriptors, tasks, blocks, slots) has none."""

    memory_mib_per_hour: float = 20.0
    """Growth of one process' resident memory. A leak of 1 KiB a request at 10 requests a second is 35."""
    memory_floor_mib: float = 4.0
    """Growth below this in the whole run says nothing: an allocator keeps arenas, and takes them in steps of a MiB."""
    memory_noises: float = 3.0
    """Growth below this number of standard deviations of the samples around the fitted line says nothing either."""
    least_samples: int = 6
    """Least samples for a slope, and least samples in each third for a drift. With fewer a soak is not passed."""
    threads: int = 8
    """A pool of threads grows to its size whenever it is busiest; asyncio's has at most 4 more than there are cores."""
    latency_ratio: float = 1.25
    """Late median over early median, beyond what the machine itself got slower."""
    latency_chance: float = 0.001
    """A drift has to be less likely by chance than this."""
    settle_s: float = 30.0
    """How long the server may take to release everything after the load."""
