"""What the server holds: memory, file descriptors and threads of its processes, and what its /metrics say."""

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.soak.http_caller import Caller, CallError, Stop

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SERVER, ENGINE, TEXT = "server", "engine", "text"

_GAUGES = {
    "running": "panacea:num_requests_running",
    "waiting": "panacea:num_requests_waiting",
    "kv_usage": "panacea:kv_cache_usage_perc",
    "slots": "panacea:num_slots_used",
    "tasks": "panacea:event_loop_tasks",
    "restarts": "panacea:engine_restarts_total",
}
_COUNTERS = {
    "preemptions": "panacea:num_preemptions_total",
    "prefix_queries": "panacea:prefix_cache_queries_total",
    "prefix_hits": "panacea:prefix_cache_hits_total",
}


@dataclass(frozen=True)
class Process:
    """What one process holds."""

    pid: int
    rss_bytes: int
    fds: int
    threads: int | None
    """None where only /metrics tell."""


@dataclass(frozen=True)
class Snapshot:
    """All that the server holds at one time."""

    at_s: float
    processes: Mapping[str, Process]
    gauges: Mapping[str, float]
    counters: Mapping[str, float]

    @property
    def idle(self) -> bool:
        return not self.gauges.get("running") and not self.gauges.get("waiting")

    def holdings(self) -> dict[str, float]:
        """Resources that must be free again when the server is idle, by name. Memory is checked separately."""
        held: dict[str, float] = {"processes": len(self.processes)}
        for name, process in self.processes.items():
            held[f"{name}: file descriptors"] = process.fds
            if process.threads is not None:
                held[f"{name}: threads"] = process.threads
        words = {
            "running": "requests running",
            "waiting": "requests waiting",
            "kv_usage": "share of KV blocks in use",
            "slots": "slots in use",
            "tasks": "event loop tasks",
            "restarts": "engine restarts",
        }
        return held | {words[name]: value for name, value in self.gauges.items()}


class Watcher:
    """Takes snapshots: one by one, or all the time in a thread of its own."""

    def __init__(self, caller: Caller, pid: int | None) -> None:
        """`pid` None: the server's processes are out of reach, and its /metrics tell of the first of them."""
        if pid is not None and not Path("/proc/self/statm").exists():
            raise BenchError("a soak reads what processes hold from /proc, which only Linux has")
        self.snapshots: list[Snapshot] = []
        self.failed = 0
        """How many snapshots in a row could not be taken."""
        self._caller = caller
        self._pid = pid
        self._stop = Stop()
        self._thread: threading.Thread | None = None

    def snapshot(self) -> Snapshot:
        """Raises `CallError` if the server does not answer, or is gone."""
        at_s = time.monotonic()
        processes = {} if self._pid is None else tree(self._pid)  # before our own request opens anything there
        samples = read_metrics(self._caller)
        if self._pid is None:
            processes = {
                SERVER: Process(
                    0,
                    round(samples.get("process_resident_memory_bytes", 0)),
                    round(samples.get("process_open_fds", 0)),
                    None,
                )
            }
        elif SERVER not in processes:
            raise CallError("the server's process is gone")
        gauges, counters = (
            {name: samples[metric] for name, metric in names.items() if metric in samples}
            for names in (_GAUGES, _COUNTERS)
        )
        return Snapshot(at_s, processes, gauges, counters)

    def start(self, interval_s: float) -> None:
        """Takes a snapshot every `interval_s`, from now on until `stop`."""
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, args=[interval_s], name="watcher")
        self._thread.start()

    def stop(self) -> None:
        self._stop.now()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _run(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                self.snapshots.append(self.snapshot())
                self.failed = 0
            except CallError:
                self.failed += 1


def read_metrics(caller: Caller) -> dict[str, float]:
    """Samples of /metrics by name, those of several series added up. Raises `CallError`."""
    reply = caller.ask("GET", "/metrics")
    caller.close()  # so that it is closed at the server when its descriptors are counted next
    if reply.status != 200:
        raise CallError(f"/metrics answers {reply.status}")
    samples: dict[str, float] = {}
    for name, value in re.findall(r"^([\w:]+)(?:\{.*\})? (\S+)$", reply.body.decode(), re.MULTILINE):
        samples[name] = samples.get(name, 0.0) + float(value)
    return samples


def tree(pid: int) -> dict[str, Process]:
    """A server's process and its descendants, by name. Empty if it is gone.

    The text workers are left out. They are forks of the process `TEXT`, and are replaced all the time.
    """
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (parent := _parent(folder)) is not None:
            parents.setdefault(parent, []).append(int(folder.name))
    found: dict[str, Process] = {}
    waiting = [pid]
    while waiting:
        each = waiting.pop(0)
        process = _process(each)
        name = SERVER if each == pid else _name(each, found)
        if process is not None:
            found[name] = process
        if name != TEXT:
            waiting += sorted(parents.get(each, ()))
    return found


def _name(pid: int, taken: Mapping[str, Process]) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        command = b""
    for name, module in ((ENGINE, b"panacea.engine"), (TEXT, b"panacea.text.worker")):
        if module in command and name not in taken:
            return name
    return f"child {len(taken)}"


def _parent(folder: Path) -> int | None:
    try:
        # "pid (name) state parent ...": a name may hold anything, parentheses too
        state, parent = (folder / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)


def _process(pid: int) -> Process | None:
    folder = Path(f"/proc/{pid}")
    if _parent(folder) is None:
        return None
    try:
        rss_pages = int((folder / "statm").read_text().split()[1])
        fds, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))
    except (OSError, IndexError):
        return None
    return Process(pid, rss_pages * PAGE_BYTES, fds, threads)
