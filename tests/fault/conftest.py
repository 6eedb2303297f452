"""One system and one job for all scenarios; what was found goes to reports/fault.json and to the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.items import Questions
from bioverify.artifacts.store import ArtifactStore
from bioverify.client import ScoreItem
from tests.fault.judge import FaultFree, Verdict, fault_free, run_job
from tests.fault.scenarios import SCENARIOS
from tests.fault.system import System
from tests.fixtures.artifacts import bundled_store

__all__ = ["bundled_store"]

SEED = int(os.environ.get("FAULT_SEED", "0"))
JOB_ITEMS, QUICK_ITEMS = 10_000, 768
CALL_DEADLINE_S = 8.0
RECOVERY_S = 10.0
WORDS = (20, 80)
"""Of a chain of thought: short ones, because what is judged is the number of outcomes."""
REPORT = Path("reports/fault.json")


@dataclass
class Bench:
    """The system, the job, and how the scenarios went."""

    system: System
    items: list[ScoreItem]
    expected: FaultFree
    writes_report: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, name: str, n_items: int) -> tuple[Verdict, dict[str, Any]]:
        """The job under one scenario, again until the scenario has had its moments, then once more when healed."""
        scenario, draw = SCENARIOS[name], random.Random(f"{SEED}/{name}")
        items = self.items[:n_items]
        self.system.heal()
        if scenario.starts_cold:
            self.system.redis().flushall()
        else:
            run_job(self.system.target, items, self.expected)
        disturbance = scenario.disturb(self.system, draw)
        next(disturbance)
        over, moments, problem = threading.Event(), [0], []

        def disturb() -> None:
            try:
                while moments[0] < scenario.moments and not over.wait(draw.uniform(0.3, 1.2)):
                    next(disturbance)
                    moments[0] += 1
            except StopIteration:
                moments[0] = scenario.moments
            except Exception as error:
                problem.append(error)
                moments[0] = scenario.moments

        thread = threading.Thread(target=disturb)
        thread.start()
        verdict = Verdict()
        seconds = 0.0
        try:
            while verdict.judged == 0 or moments[0] < scenario.moments:
                if scenario.starts_cold and verdict.judged:
                    with contextlib.suppress(redis.RedisError):
                        self.system.redis().flushall()
                one = run_job(
                    self.system.target,
                    items,
                    self.expected,
                    deadline_s=CALL_DEADLINE_S,
                    fresh_connections=scenario.fresh_connections,
                )
                verdict.add(one)
                seconds += one.seconds
        finally:
            over.set()
            thread.join()
            disturbance.close()  # type: ignore[attr-defined]
        if problem:
            raise problem[0]
        self.system.heal()
        row = {
            "scenario": name,
            "outcomes": verdict.judged,
            "wrong": verdict.wrong,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "reordered": verdict.reordered,
            "failed_share": round(verdict.failed / max(1, verdict.judged), 4),
            "refused_calls": verdict.refused_calls,
            "slowest_call_s": round(verdict.slowest_call_s, 2),
            "moments": moments[0],
            "seconds": round(seconds, 1),
            "failures": dict(verdict.failures.most_common(6)),
            "examples": verdict.examples,
            "load_average": round(os.getloadavg()[0], 1),
        }
        self.rows.append(row)
        return verdict, row

    def recovered(self, n_items: int) -> tuple[Verdict, float]:
        """The first items, asked again until none fails, for at most `RECOVERY_S`; and how long that took."""
        started = time.monotonic()
        while True:
            verdict = run_job(self.system.target, self.items[: min(n_items, 768)], self.expected)
            took_s = time.monotonic() - started
            if verdict.failed == 0 or not verdict.is_clean or took_s > RECOVERY_S:
                self.rows[-1]["recovered_after_s"] = round(took_s, 1)
                self._write_report()
                return verdict, took_s
            time.sleep(0.5)

    def _write_report(self) -> None:
        if self.writes_report:
            REPORT.parent.mkdir(exist_ok=True)
            loads = [row["load_average"] for row in self.rows]
            report = {
                "seed": SEED,
                "load_average": [min(loads), max(loads)],
                "total": _total(self.rows),
                "scenarios": self.rows,
            }
            REPORT.write_text(json.dumps(report, indent=2) + "\n")


@pytest.fixture(scope="session")
def bench(bundled_store: ArtifactStore, request: pytest.FixtureRequest) -> Iterator[Bench]:
    whole = _is_whole(request.config)
    items = Questions(bundled_store).draw(JOB_ITEMS if whole else QUICK_ITEMS, SEED, WORDS)
    with System(bundled_store) as system:
        bench = Bench(system, items, fault_free(items, bundled_store), writes_report=whole)
        request.config.stash[_ROWS] = bench.rows
        yield bench


_ROWS = pytest.StashKey[list[dict[str, Any]]]()


_LINE = "{:<45} {:>9} {:>6} {:>5} {:>8} {:>8} {:>8} {:>7}".format


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(_LINE("scenario", "outcomes", "wrong", "lost", "doubled", "failed", "slowest", "s"))
    for row in rows:
        failed, slowest = f"{row['failed_share']:.1%}", f"{row['slowest_call_s']:.1f} s"
        counts = (row[key] for key in ("outcomes", "wrong", "lost", "doubled"))
        terminalreporter.write_line(_LINE(row["scenario"], *counts, failed, slowest, row["seconds"]))
    total = _total(rows)
    counts = (total[key] for key in ("outcomes", "wrong", "lost", "doubled"))
    terminalreporter.write_line(_LINE("all", *counts, "", "", ""))
    if _is_whole(config):
        terminalreporter.write_line(f"Written: {REPORT}")


def _total(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {key: sum(row[key] for row in rows) for key in ("outcomes", "wrong", "lost", "doubled", "reordered")}


def _is_whole(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "fault")
