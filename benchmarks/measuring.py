"""What all speed benchmarks share: the machine in words, repeated timings, and a local stack of their own."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("grpcio", "protobuf", "numpy", "redis", "rapidfuzz", "rouge-score-rs", "rouge-score", "fastapi", "uvicorn")


def machine() -> dict[str, str | float]:
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "load_at_start": round(os.getloadavg()[0], 2),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def cpu_us(n: int, work: Callable[[], object], repeats: int = 5) -> float:
    """Microseconds of this process's CPU per item: the best of the repeats, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return round(min(seconds[1:]) / n * 1e6, 2)


@contextmanager
def running_stack(port_base: int, workers: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """A stack of its own state folder: its aggregator's address, and how it started (seconds, folder, processes)."""
    with tempfile.TemporaryDirectory() as state:
        environment = {**os.environ, "BIOVERIFY_STATE": state}
        options = ["--port-base", str(port_base), "--workers", str(workers)]
        bioverify = [sys.executable, "-m", "bioverify.cli"]
        started = time.perf_counter()
        subprocess.run([*bioverify, "up", *options], check=True, env=environment, stdout=subprocess.DEVNULL)
        start_up_s = round(time.perf_counter() - started, 2)
        try:
            yield f"127.0.0.1:{port_base}", {"seconds": start_up_s, "state": state, "processes": processes_of(state)}
        finally:
            subprocess.run([*bioverify, "down"], check=True, env=environment, stdout=subprocess.DEVNULL)


def processes_of(state: str) -> dict[str, dict[str, float]]:
    """Name → resident and proportional MB, CPU seconds, of every process that was started for this stack."""
    found: dict[str, dict[str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"BIOVERIFY_STACK={state}" not in (folder / "environ").read_text().split("\0"):
                continue
            words = (folder / "cmdline").read_text().split("\0")
            rollup = (folder / "smaps_rollup").read_text()
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        name = _name_of(words)
        if name is None:
            continue
        mb = {key: int(kilobytes) / 1000 for key, kilobytes in re.findall(r"^(Rss|Pss):\s+(\d+)", rollup, re.MULTILINE)}
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        one = found.setdefault(name, {"resident_mb": 0.0, "proportional_mb": 0.0, "cpu_s": 0.0})
        one["resident_mb"] = round(one["resident_mb"] + mb["Rss"], 1)
        one["proportional_mb"] = round(one["proportional_mb"] + mb["Pss"], 1)
        one["cpu_s"] = round(one["cpu_s"] + cpu_s, 2)
    return dict(sorted(found.items()))


def cpu_of_all(state: str) -> float:
    """CPU seconds so far of this process, of those it started, and of the stack in ``state``."""
    children = sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))
    return time.process_time() + children + sum(one["cpu_s"] for one in processes_of(state).values())


def _name_of(words: Sequence[str]) -> str | None:
    if "serve" in words:
        return words[words.index("serve") + 1]
    if "aggregate" in words:
        return "aggregator"
    if "gateway" in words:
        return "gateway"
    if any("valkey" in word for word in words[:1]):
        return "valkey"
    return "supervisor" if "supervisor.supervisord" in words else None
