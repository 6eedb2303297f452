"""`make demo`: the whole line once, from public data to a trained policy and a report, then everything stopped.

Each step is a command that a person could type; this module only runs them, with a home of their own below
``.cache/demo`` and on free ports, and says of each in one line what it took. What was made stays there, so a second run
is faster. Two lanes run side by side while artifacts are built: the long build of the gene vectors, and the short ones,
behind which a small language model begins to answer.

Nothing is built or started but what two recipes ask: `first-score` for what the language model wrote, and `rbio1-exp`
for the training of a policy so small that it learns something while one waits.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import orjson
import psutil
import typer
from rich.console import Console

from bioverify import recipes
from bioverify.cli.services import ARTIFACTS, VERIFIERS, opened_by
from bioverify.files import read_lines
from bioverify.stack import StackError, free_port_base, state_folder
from bioverify.stack import status as stack_status

SCORED_BY, TRAINED_BY = "first-score", "rbio1-exp"
SERVED = tuple(name for name in VERIFIERS if name in {*recipes.load(SCORED_BY).verifiers, "experimental"})
# The questions are drawn from prompts; the small policy knows genes by the vectors of esm_mlp.
BUILT = tuple(name for name in ARTIFACTS if name in {*opened_by(SERVED), "prompts", "esm_mlp"})
LONG_BUILD = "esm_mlp"
PRESET = ("--preset", "gene-vectors")
BIOVERIFY = (sys.executable, "-m", "bioverify.cli")
_TAIL_LINES = 20

console = Console(highlight=False)


@dataclass
class Steps:
    """Runs commands one by one or in lanes. ``logs``: where what they print is kept; None: it is shown as it comes."""

    logs: Path | None
    cpu_s: list[float] = field(default_factory=list)
    """Of the steps that are done."""
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def run(self, title: str, *words: str, threads: int = 1, shows: int = 0) -> None:
        """One command. ``shows``: so many of the last lines that it printed. Its exit status, if it fails, is ours."""
        started, command = time.monotonic(), (*BIOVERIFY, *words)
        # Threads wait passively: one that spins after losing its core to another process costs ten times the step.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        log = self.logs / f"{title.replace(' ', '-')}.log" if self.logs else None
        with log.open("wb") if log else nullcontext() as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file and subprocess.STDOUT)
            self._running.add(process)
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                # Ctrl-C or SIGTERM: a step does not outlive the services that it asks.
                process.terminate()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            self._running.discard(process)
        seconds, cpu = time.monotonic() - started, used.ru_utime + used.ru_stime
        self.cpu_s.append(cpu)
        said = f"[dim]bioverify {shlex.join(words)}[/]" if self.logs is None else ""
        console.print(f"{title:34} {seconds:6.1f} s  {cpu:6.1f} s of CPU  {said}", soft_wrap=True)
        printed = log.read_text(errors="replace").splitlines() if log else []
        if process.returncode:
            console.print(f"[red]{title}: exit status {process.returncode}[/]  {log or ''}", soft_wrap=True)
            console.print("\n".join(printed[-_TAIL_LINES:]), markup=False, soft_wrap=True)
            raise typer.Exit(process.returncode if process.returncode > 0 else 128 - process.returncode)
        if shows and printed:
            console.print("\n".join(f"    {line}" for line in printed[-shows:]), markup=False, soft_wrap=True)

    def side_by_side(self, *lanes: Sequence[tuple[str, ...]]) -> None:
        """Each lane a sequence of (title, words …). The first failure stops the other lanes."""

        def walk(lane: Sequence[tuple[str, ...]]) -> None:
            for title, *words in lane:
                self.run(title, *words)

        with ThreadPoolExecutor(len(lanes)) as pool:
            futures = [pool.submit(walk, lane) for lane in lanes if lane]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        for process in list(self._running):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)


def main(
    home: Annotated[Path, typer.Option(help="Where artifacts, models and files are kept.")] = Path(".cache/demo"),
    run: Annotated[Path, typer.Option(help="Folder of the training run.")] = Path("runs/demo"),
    report: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report/demo.html"),
    completions: Annotated[int, typer.Option(min=0, help="Completions to generate and score.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the small policy.")] = 60,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all that the commands print.")] = False,
) -> None:
    """Build, serve, generate, score, train, report, stop."""
    home, run = home.absolute(), _fresh(run)
    (home / "logs").mkdir(parents=True, exist_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    os.environ["BIOVERIFY_HOME"] = str(home)
    # What stops this program must first stop what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    port_base = free_port_base(VERIFIERS)
    target = f"127.0.0.1:{port_base}"
    generated, scored = home / "completions.jsonl", home / "scored.jsonl"
    to_build = [name for name in BUILT if not (home / "artifacts" / name / "current").exists()]
    started, demo = time.monotonic(), Steps(None if verbose else home / "logs")
    console.print(
        f"{len(to_build)} artifacts to build of {len(BUILT)}, {len(SERVED)} verifiers to start, {completions} answers "
        f"of SmolLM2 to score, {steps} steps of GRPO with a small policy, and a report. "
        f"What the commands print: {'here' if verbose else f'{home}/logs, or here with -v'}.",
        soft_wrap=True,
    )
    answer = ("generate answers", "generate", str(generated), "--n", str(completions), "--preset", "cpu")
    in_use = psutil.cpu_count() or 1
    try:
        if to_build:
            if "genes" in to_build:
                demo.run("build genes", "data", "build", "genes")
            short = [(f"build {name}", "data", "build", name) for name in to_build if name not in {"genes", LONG_BUILD}]
            long = [(f"build {LONG_BUILD}", "data", "build", LONG_BUILD)] if LONG_BUILD in to_build else []
            demo.side_by_side(long, [*short, *([answer] if completions else [])])
        elif completions:
            demo.run(*answer, threads=in_use)
        only = [word for name in SERVED for word in ("--only", name)]
        demo.run("start services", "up", "--port-base", str(port_base), "--no-gateway", *only)
        if completions:
            by = ("--recipe", SCORED_BY, "--target", target, "--output", str(scored))
            demo.run("score answers", "score", str(generated), *by, shows=3)
        how = (*PRESET, "--set", f"grpo.max_steps={steps}", "--target", target, "--output", str(run))
        demo.run("train", "train", TRAINED_BY, *how)
        console.print(f"    {learnt(read_lines(run / 'metrics.jsonl'))}", soft_wrap=True)
        scores = ("--scores", str(scored)) if completions else ()
        demo.run("write report", "report", str(run), "--output", str(report), *scores)
        of_services = _cpu_of_services()
    finally:
        # Ctrl-C reaches the steps by themselves; a second one must not keep the services running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        demo.run("stop services", "down")
    cpu = sum(demo.cpu_s) + of_services
    console.print(
        f"\n[bold]Done in {time.monotonic() - started:.0f} s[/], {cpu:.0f} s of CPU, "
        f"{of_services:.0f} of them the services'. Open {report.absolute()}",
        soft_wrap=True,
    )


def learnt(records: Iterable[bytes]) -> str:
    """From the figures of a run's steps: how well the policy orders what it was not trained on."""
    figures = [orjson.loads(record) for record in records]
    [before, *after] = [
        record[key]
        for record in figures
        for key in ("heldout_before/auc_per_gene", "heldout/auc_per_gene")
        if record.get(key) is not None
    ]
    then = f"{after[-1]:.3f} after {len(figures)} steps" if after else f"not asked again within {len(figures)} steps"
    return (
        f"Held-out questions, AUC per gene (chance: 0.5): {before:.3f} before, {then}; "
        f"reward {figures[0]['reward']:.2f} → {figures[-1]['reward']:.2f}"
    )


def _cpu_of_services() -> float:
    """Seconds that the processes of the stack have used."""
    seconds = 0.0
    with suppress(StackError):
        for pid in filter(None, (one.pid for one in stack_status(state_folder()))):
            with suppress(psutil.Error):
                used = psutil.Process(pid).cpu_times()
                seconds += used.user + used.system
    return seconds


def _fresh(run: Path) -> Path:
    """The folder, or the next free one beside it: an earlier run is not written over."""
    number, candidate = 1, run
    while candidate.exists():
        number += 1
        candidate = run.with_name(f"{run.name}-{number}")
    return candidate.absolute()


if __name__ == "__main__":
    typer.run(main)
