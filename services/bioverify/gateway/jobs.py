"""Large files: taken in whole, scored in the background, kept on disk, never scored twice and never lost.

A job is a folder: ``input.jsonl`` as it came, ``results.jsonl`` and ``bad_lines.jsonl`` as they grow, and ``job.json``,
which says how far they are good. After each chunk results are appended and forced to disk, then ``job.json`` is
replaced. After a crash everything behind that mark is cut off and scored again (mostly from the cache), so a result
stands in the file exactly once, in the order of the input.

While no aggregator answers, a job waits and asks again. A verifier's fault is no reason to wait: the item comes out
unscorable, with the reason, like in any other call.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import orjson
import structlog
from pydantic import BaseModel, ConfigDict

from bioverify.client import Client, ClientError, ScoredBatch, TlsIdentity
from bioverify.gateway import metrics
from bioverify.rollouts.lines import FileItem, LineError, in_chunks, output_line, read_items

CHUNK_ITEMS = 512
CHUNKS_AT_ONCE = 2
CHUNK_DEADLINE_S = 120.0
JOBS_AT_ONCE = 2
LONGEST_WAIT_S = 15.0
_log = structlog.get_logger("bioverify.gateway")


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """No aggregator answers; asked again until one does."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = {JobState.DONE, JobState.CANCELLED, JobState.FAILED}


class Job(BaseModel):
    """One file of completions. ``lines`` in all; ``line``: the last one that is dealt with; ``detail``: why it waits or
    failed. ``result_bytes`` and ``bad_line_bytes``: how far the two files are good. Times are seconds since 1970.
    """

    model_config = ConfigDict(validate_assignment=True)

    id: str
    owner: str
    recipe: str
    evidence: bool
    created: float
    lines: int
    state: JobState = JobState.QUEUED
    detail: str = ""
    started: float | None = None
    ended: float | None = None
    line: int = 0
    scored: int = 0
    unscorable: int = 0
    bad_lines: int = 0
    result_bytes: int = 0
    bad_line_bytes: int = 0


class RecipeGoneError(Exception):
    """The aggregator was changed while the job waited."""


class _StoppedError(Exception):
    """The job was cancelled, or the gateway ends."""


class Jobs:
    """All jobs of one folder. Those that had not ended when the last process did are taken up again."""

    def __init__(self, folder: Path, aggregator: str, keep_s: float, tls: TlsIdentity | None = None) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._client = Client(aggregator, tls=tls)
        self._keep_s = keep_s
        self._pool = ThreadPoolExecutor(JOBS_AT_ONCE, thread_name_prefix="job")
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._cancelled: dict[str, threading.Event] = {}
        self._jobs = {job.id: job for job in self._stored()}
        for state in JobState:
            metrics.JOBS.labels(state).set_function(partial(self._count, state))
        for job in sorted(self._jobs.values(), key=lambda job: job.created):
            if job.state not in ENDED:
                self._take_up(job)

    def new_folder(self) -> Path:
        """Where the file of a job to come is written; ``submit`` or ``discard`` it."""
        self._remove_old()
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    def submit(self, folder: Path, owner: str, recipe: str, evidence: bool, lines: int) -> Job:
        """Score ``folder/input.jsonl`` by a recipe that the aggregator has."""
        job = Job(id=folder.name, owner=owner, recipe=recipe, evidence=evidence, created=time.time(), lines=lines)
        self._save(job)
        with self._lock:
            self._jobs[job.id] = job
        self._take_up(job)
        return job

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def all(self) -> list[Job]:
        """Latest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def _count(self, state: JobState) -> int:
        return sum(job.state is state for job in self.all())

    def get(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def results(self, job: Job) -> tuple[Path, int]:
        """The file of results, and how many of its bytes are good."""
        return self._folder / job.id / "results.jsonl", job.result_bytes

    def bad_lines(self, job: Job) -> tuple[Path, int]:
        """The file of lines that could not be read, and how many of its bytes are good."""
        return self._folder / job.id / "bad_lines.jsonl", job.bad_line_bytes

    def cancel(self, job: Job) -> None:
        """Stop it after the chunk that it is at; what is scored is kept."""
        self._cancelled[job.id].set()

    def remove(self, job: Job) -> None:
        """Forget an ended job and its files."""
        with self._lock:
            del self._jobs[job.id]
        shutil.rmtree(self._folder / job.id)

    def close(self) -> None:
        """Stop at the next chunk; a later process goes on from there."""
        self._ending.set()
        for waiting in self._cancelled.values():
            waiting.set()
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _stored(self) -> Iterator[Job]:
        for folder in self._folder.iterdir():
            try:
                yield Job.model_validate_json((folder / "job.json").read_bytes())
            except FileNotFoundError:
                # An upload that did not end: nobody was told of it.
                shutil.rmtree(folder)

    def _remove_old(self) -> None:
        for job in self.all():
            if job.ended is not None and time.time() - job.ended > self._keep_s:
                self.remove(job)

    def _save(self, job: Job) -> None:
        path = self._folder / job.id / "job.json"
        with (written := path.with_suffix(".new")).open("wb") as file:
            file.write(job.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)

    def _take_up(self, job: Job) -> None:
        self._cancelled[job.id] = threading.Event()
        self._pool.submit(self._run, job)

    def _run(self, job: Job) -> None:
        try:
            self._score(job)
            job.state = JobState.DONE
        except _StoppedError:
            if self._ending.is_set():
                return
            job.state = JobState.CANCELLED
        except (ClientError, OSError, RecipeGoneError) as error:
            job.state, job.detail = JobState.FAILED, str(error)
            _log.error("job failed", job=job.id, error=str(error))
        except Exception as error:
            # The thread's only witness: without this the job would stay "running" for ever.
            job.state, job.detail = JobState.FAILED, f"a fault of the gateway: {type(error).__name__}"
            _log.exception("job failed", job=job.id)
        job.ended = time.time()
        with suppress(FileNotFoundError):  # removed meanwhile
            self._save(job)

    def _score(self, job: Job) -> None:
        folder = self._folder / job.id
        job.started = job.started or time.time()
        sources = self._sources(job)
        job.state = JobState.RUNNING
        bad_lines: deque[LineError] = deque()
        with (
            (folder / "input.jsonl").open("rb") as lines,
            _opened_at(folder / "results.jsonl", job.result_bytes) as results,
            _opened_at(folder / "bad_lines.jsonl", job.bad_line_bytes) as bad,
            ThreadPoolExecutor(CHUNKS_AT_ONCE, thread_name_prefix=f"job-{job.id}") as pool,
        ):
            items = read_items(islice(lines, job.line, None), sources, bad_lines.append, first_line=job.line + 1)
            asked: deque[tuple[list[FileItem], Future[ScoredBatch]]] = deque()

            def keep(line: int, scored: list[bytes], unscorable: int) -> None:
                refused = []
                while bad_lines and bad_lines[0].line <= line:
                    error = bad_lines.popleft()
                    refused.append(orjson.dumps({"line": error.line, "problem": error.problem}) + b"\n")
                for file, rows in ((results, scored), (bad, refused)):
                    file.write(b"".join(rows))
                    file.flush()
                    os.fsync(file.fileno())
                job.line = line
                job.scored += len(scored) - unscorable
                job.unscorable += unscorable
                job.bad_lines += len(refused)
                metrics.JOB_LINES.labels("scored").inc(len(scored) - unscorable)
                metrics.JOB_LINES.labels("unscorable").inc(unscorable)
                metrics.JOB_LINES.labels("bad").inc(len(refused))
                job.result_bytes, job.bad_line_bytes = results.tell(), bad.tell()
                self._save(job)

            def finish_first() -> None:
                chunk, future = asked.popleft()
                rewards = future.result().rewards
                rows = list(map(output_line, chunk, rewards))
                keep(chunk[-1].line, rows, sum(reward.reward is None for reward in rewards))

            try:
                for chunk in in_chunks(items, CHUNK_ITEMS):
                    self._check(job)
                    asked.append((chunk, pool.submit(self._ask, job, chunk)))
                    if len(asked) == CHUNKS_AT_ONCE:
                        finish_first()
                while asked:
                    finish_first()
                keep(job.lines, [], 0)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _sources(self, job: Job) -> list[str]:
        wait_s = 0.5
        while True:
            try:
                recipes = {recipe.name: recipe for recipe in self._client.list_recipes()}
                return [source.name for source in recipes[job.recipe].sources]
            except ClientError as error:
                wait_s = self._wait(job, error, wait_s)
            except KeyError as error:
                raise RecipeGoneError(f"the aggregator has no recipe {job.recipe} any more") from error

    def _ask(self, job: Job, chunk: list[FileItem]) -> ScoredBatch:
        wait_s = 0.5
        items = [line.item for line in chunk]
        while True:
            self._check(job)
            try:
                batch = self._client.score(items, job.recipe, deadline_s=CHUNK_DEADLINE_S, with_evidence=job.evidence)
            except ClientError as error:
                wait_s = self._wait(job, error, wait_s)
            else:
                job.state, job.detail = JobState.RUNNING, ""
                return batch

    def _wait(self, job: Job, error: ClientError, wait_s: float) -> float:
        """Wait for an aggregator; returns how long the next wait is. Raises the error where waiting is of no use."""
        if not error.may_pass:
            raise error
        job.state, job.detail = JobState.WAITING, str(error)
        if self._cancelled[job.id].wait(wait_s) or self._ending.is_set():
            raise _StoppedError
        return min(2 * wait_s, LONGEST_WAIT_S)

    def _check(self, job: Job) -> None:
        if self._cancelled[job.id].is_set() or self._ending.is_set():
            raise _StoppedError


def _opened_at(path: Path, size_bytes: int) -> BinaryIO:
    """The file, cut to the bytes that are known to be good, to be appended to."""
    path.touch(mode=0o600)
    file = path.open("r+b")
    file.truncate(size_bytes)
    file.seek(size_bytes)
    return file
