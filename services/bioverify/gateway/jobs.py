"""Large files: taken in whole, scored in the background, kept on disk, never scored twice and never lost.

A job is a folder: ``input.jsonl`` as it came, ``results.jsonl`` and ``bad_lines.jsonl`` as they grow, and ``job.json``,
which says how far they are good. After each chunk results are appended and forced to disk, then ``job.json`` is
replaced. After a crash everything behind that mark is cut off and scored again (mostly from the cache), so a result
stands in the file exactly once, in the order of the input.

Of the folder of all jobs only what has the name of a job is ours; all else is left alone. An upload that a kill cut
short is removed, because nobody was told of it. A job whose ``job.json`` cannot be read is listed as failed and kept.

While no aggregator answers, a job waits and asks again: it gives its place back and is queued again when its time has
come. Keys take turns, so that nobody's jobs hold another's back (`bioverify.gateway.turns`). A refusal that cannot pass
ends the job. A verifier's fault is no reason to wait: the item comes out unscorable, with the reason, like in any other
call.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from structlog.contextvars import bound_contextvars

from bioverify.client import Client, ClientError, ItemReward, ScoredBatch, TlsIdentity
from bioverify.client.json_form import ItemJson
from bioverify.client.values import readings_of
from bioverify.core.readings import Readable, Readings
from bioverify.errors import BioverifyError
from bioverify.files import append_lines, replace_file, sync
from bioverify.gateway import metrics
from bioverify.gateway.turns import Turns
from bioverify.rollouts.lines import FileItem, LineError, fields_of, item_of, lines_of, output_line, read_chunks

CHUNK_ITEMS = 512
CHUNKS_AT_ONCE = 2
CHUNK_DEADLINE_S = 120.0
JOBS_AT_ONCE = 2
TURN_S = 10.0
"""For so long a job keeps its place if another key's job is ready."""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says if a disk, a quota or a file is full."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0
_FOLDER_NAME = re.compile(r"[0-9a-f]{16}")
_OF_AN_UPLOAD = {"input.jsonl", ".job.json.partial"}
"""All that a folder can hold before its job is known to anybody."""
_log = structlog.get_logger("bioverify.gateway")


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """The aggregator does not answer or has too much to do; asked again until it does."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = {JobState.DONE, JobState.CANCELLED, JobState.FAILED}


class Job(BaseModel):
    """One file of completions. ``lines`` in all; ``line``: the last one that is dealt with; ``detail``: why it waits or
    failed. ``request_id``: of the call that sent it, under which all services log its work. ``result_bytes`` and
    ``bad_line_bytes``: how far the two files are good. ``unread_keys``: of lines, that mean nothing here. ``not_read``:
    of how many of the ``looked_at`` lines the question, a thought or the answer was not read, by reason;
    ``warning``: that no completion so far has a thought, and what to do. Times are seconds since 1970.
    """

    model_config = ConfigDict(validate_assignment=True)

    id: str
    owner: str
    recipe: str
    evidence: bool
    created: float
    lines: int
    request_id: str = ""
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
    unread_keys: list[str] = []
    looked_at: int = 0
    not_read: dict[Readable, dict[str, int]] = {}
    warning: str = ""


class RecipeGoneError(BioverifyError):
    """The aggregator was changed while the job waited."""


class TooManyJobsError(BioverifyError):
    """The owner has as many jobs under way as a key may have."""


class _StoppedError(BioverifyError):
    """The job was cancelled, or the gateway ends."""


class _TurnOverError(BioverifyError):
    """Another key's job is to have the place."""


class Jobs:
    """All jobs of one folder. Those that had not ended when the last process did are taken up again."""

    def __init__(
        self, folder: Path, aggregator: str, keep_s: float, most_per_key: int, tls: TlsIdentity | None = None
    ) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._client = Client(aggregator, tls=tls, warns=False)
        self._keep_s = keep_s
        self._most_per_key = most_per_key
        self._lock = threading.Lock()
        # A job may be removed as soon as it is seen to have ended, but not while that is being written.
        self._endings = threading.Lock()
        self._ending = threading.Event()
        self._turns = Turns()
        self._cancelled: set[str] = set()
        self._waits_in_a_row = Counter[str]()
        self._jobs = {job.id: job for job in self._stored()}
        for state in JobState:
            metrics.JOBS.labels(state).set_function(partial(self._count, state))
        for job in sorted(self._jobs.values(), key=lambda job: job.created):
            if job.state not in ENDED:
                self._turns.add(job.owner, job.id)
        self._workers = [threading.Thread(target=self._work, name=f"job-{n}", daemon=True) for n in range(JOBS_AT_ONCE)]
        for worker in self._workers:
            worker.start()

    def check_room(self, owner: str) -> None:
        """Raises TooManyJobsError."""
        under_way = sum(job.owner == owner and job.state not in ENDED for job in self.all())
        if under_way >= self._most_per_key:
            raise TooManyJobsError(f"{under_way} jobs are under way; a key may have {self._most_per_key} at a time")

    def new_folder(self) -> Path:
        """Where the file of a job to come is written; ``submit`` or ``discard`` it."""
        self._remove_old()
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    def submit(self, folder: Path, owner: str, recipe: str, evidence: bool, lines: int, request_id: str) -> Job:
        """Score ``folder/input.jsonl`` by a recipe that the aggregator has. Raises TooManyJobsError."""
        self.check_room(owner)
        job = Job(
            id=folder.name,
            owner=owner,
            recipe=recipe,
            evidence=evidence,
            created=time.time(),
            lines=lines,
            request_id=request_id,
        )
        # Whoever is told of the job relies on it: file, job and folder outlive a loss of power.
        sync(folder / "input.jsonl")
        self._save(job)
        sync(self._folder)
        with self._lock:
            self._jobs[job.id] = job
        self._turns.add(job.owner, job.id)
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

    def item(self, job: Job, row: int) -> tuple[int, ItemJson] | None:
        """The line, from 1, that the result in ``row``, from 0, is of, with its item; None if there is no such row.

        Results stand in the order of the file, one for each line that was not refused.
        """
        if row >= job.scored + job.unscorable:
            return None
        path, good_bytes = self.bad_lines(job)
        refused: set[int] = set()
        if good_bytes:
            with path.open("rb") as file:
                refused = {orjson.loads(line)["line"] for line in file.read(good_bytes).splitlines()}
        with (self._folder / job.id / "input.jsonl").open("rb") as file:
            good = (
                (number, raw) for number, raw in enumerate(lines_of(file), 1) if raw.strip() and number not in refused
            )
            number, raw = next(islice(good, row, None))
        return number, item_of(fields_of(raw, number), number)

    def cancel(self, job: Job) -> None:
        """Stop it now if it waits, else after the chunk that it is at; what is scored is kept."""
        self._cancelled.add(job.id)
        if self._turns.remove(job.id):
            self._end(job, JobState.CANCELLED)

    def remove(self, job: Job) -> None:
        """Forget an ended job and its files, also if somebody else removes it at the same time."""
        with self._lock:
            mine = self._jobs.pop(job.id, None) is not None
        if mine:
            with self._endings:
                shutil.rmtree(self._folder / job.id)

    def close(self) -> None:
        """Stop at the next chunk; a later process goes on from there."""
        self._ending.set()
        self._turns.close()
        for worker in self._workers:
            worker.join()
        self._client.close()

    def _stored(self) -> Iterator[Job]:
        for folder in self._folder.iterdir():
            if not _FOLDER_NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
                _log.warning("not a job's folder; left alone", path=str(folder))
                continue
            try:
                job = Job.model_validate_json((folder / "job.json").read_bytes())
                if job.id != folder.name:
                    raise ValueError(f"it is of job {job.id}")  # noqa: TRY301
                yield job
            except (OSError, ValueError) as error:
                if isinstance(error, FileNotFoundError) and {file.name for file in folder.iterdir()} <= _OF_AN_UPLOAD:
                    _log.info("an upload that did not end was removed", job=folder.name)
                    shutil.rmtree(folder)
                    continue
                yield _unreadable(folder, error)

    def _remove_old(self) -> None:
        for job in self.all():
            if job.ended is not None and time.time() - job.ended > self._keep_s:
                self.remove(job)

    def _save(self, job: Job) -> None:
        replace_file(self._folder / job.id / "job.json", job.model_dump_json())

    def _work(self) -> None:
        while (job_id := self._turns.next()) is not None:
            if (job := self.get(job_id)) is not None:
                with bound_contextvars(request_id=job.request_id):
                    self._run(job)

    def _run(self, job: Job) -> None:
        """Give the job its turn; it ends, is queued again, or is left to a later process."""
        try:
            self._score(job)
            self._end(job, JobState.DONE)
        except _TurnOverError:
            job.state = JobState.QUEUED
            self._turns.add(job.owner, job.id)
        except _StoppedError:
            if not self._ending.is_set():
                self._end(job, JobState.CANCELLED)
        except ClientError as error:
            if error.may_pass:
                self._wait(job, str(error), error.refusal.retry_after_s or 0.0)
            else:
                self._fail(job, str(error))
        except OSError as error:
            # A full disk is somebody's to empty; what is kept so far is whole.
            if error.errno in NO_ROOM:
                self._wait(
                    job, f"no room for the results ({error.strerror}); tried again until there is", LONGEST_WAIT_S
                )
            else:
                self._fail(job, str(error))
        except RecipeGoneError as error:
            self._fail(job, str(error))
        except Exception as error:
            # The thread's only witness: without this the job would stay "running" for ever.
            _log.exception("job failed", job=job.id)
            self._end(job, JobState.FAILED, f"a fault of the gateway: {type(error).__name__}")

    def _fail(self, job: Job, why: str) -> None:
        _log.error("job failed", job=job.id, error=why)
        self._end(job, JobState.FAILED, why)

    def _end(self, job: Job, state: JobState, detail: str = "") -> None:
        self._cancelled.discard(job.id)
        del self._waits_in_a_row[job.id]
        with self._endings:
            job.state, job.detail, job.ended = state, detail, time.time()
            try:
                self._save(job)
            except OSError as error:
                _log.error(
                    "how a job ended is not kept; it is taken up again after a restart", job=job.id, error=str(error)
                )

    def _wait(self, job: Job, why: str, least_s: float) -> None:
        """Queue the job again for when asking may help."""
        wait_s = min(FIRST_WAIT_S * 2.0 ** self._waits_in_a_row[job.id], LONGEST_WAIT_S)
        self._waits_in_a_row[job.id] += 1
        job.state, job.detail = JobState.WAITING, why
        self._turns.add(job.owner, job.id, after_s=max(wait_s, least_s))
        if job.id in self._cancelled:
            self.cancel(job)

    def _score(self, job: Job) -> None:
        folder = self._folder / job.id
        turn_ends = time.monotonic() + TURN_S
        self._check(job)
        results, bad = folder / "results.jsonl", folder / "bad_lines.jsonl"
        _cut_to(results, job.result_bytes)
        _cut_to(bad, job.bad_line_bytes)
        job.started = job.started or time.time()
        sources = self._sources(job)
        job.state, job.detail = JobState.RUNNING, ""
        bad_lines: list[LineError] = []
        unread_keys = set(job.unread_keys)
        readings = _readings_of(job)
        with (
            (folder / "input.jsonl").open("rb") as lines,
            ThreadPoolExecutor(CHUNKS_AT_ONCE, thread_name_prefix=f"job-{job.id}") as pool,
        ):
            chunks = read_chunks(
                lines_of(lines), sources, bad_lines.append, CHUNK_ITEMS, skip=job.line, unread_keys=unread_keys
            )
            asked: deque[tuple[list[FileItem], Future[ScoredBatch]]] = deque()

            def keep(line: int, scored: list[bytes], rewards: list[ItemReward]) -> None:
                # What is wrong with a whole group is known at its end, after what is wrong with lines in it.
                past = sorted((error for error in bad_lines if error.line <= line), key=lambda error: error.line)
                refused = [orjson.dumps({"line": error.line, "problem": error.problem}) + b"\n" for error in past]
                bad_lines[:] = [error for error in bad_lines if error.line > line]
                result_bytes, bad_line_bytes = _append(results, scored), _append(bad, refused)
                job.result_bytes += result_bytes
                job.bad_line_bytes += bad_line_bytes
                unscorable = sum(reward.reward is None for reward in rewards)
                readings.update(readings_of(rewards))
                job.looked_at = readings.items
                job.not_read = {what: dict(counts) for what, counts in readings.not_read.items()}
                job.warning = readings.warning
                job.line = line
                job.unread_keys = sorted(unread_keys)
                job.scored += len(scored) - unscorable
                job.unscorable += unscorable
                job.bad_lines += len(refused)
                metrics.JOB_LINES.labels("scored").inc(len(scored) - unscorable)
                metrics.JOB_LINES.labels("unscorable").inc(unscorable)
                metrics.JOB_LINES.labels("bad").inc(len(refused))
                self._save(job)
                del self._waits_in_a_row[job.id]

            def finish_first() -> None:
                chunk, future = asked.popleft()
                rewards = future.result().rewards
                keep(chunk[-1].line, list(map(output_line, chunk, rewards)), rewards)

            try:
                for chunk in chunks:
                    self._check(job)
                    if time.monotonic() > turn_ends and self._turns.is_asked_for(job.owner):
                        while asked:
                            finish_first()
                        raise _TurnOverError
                    asked.append((chunk, pool.submit(self._ask, job, chunk)))
                    if len(asked) == CHUNKS_AT_ONCE:
                        finish_first()
                while asked:
                    finish_first()
                keep(job.lines, [], [])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _sources(self, job: Job) -> list[str]:
        recipes = {recipe.name: recipe for recipe in self._client.list_recipes()}
        if job.recipe not in recipes:
            raise RecipeGoneError(f"the aggregator has no recipe {job.recipe} any more")
        return [source.name for source in recipes[job.recipe].sources]

    def _ask(self, job: Job, chunk: list[FileItem]) -> ScoredBatch:
        items = [line.item for line in chunk]
        return self._client.score(
            items,
            job.recipe,
            deadline_s=CHUNK_DEADLINE_S,
            with_evidence=job.evidence,
            evidence_once=False,
            request_id=job.request_id,
        )

    def _check(self, job: Job) -> None:
        if job.id in self._cancelled or self._ending.is_set():
            raise _StoppedError


def _readings_of(job: Job) -> Readings:
    """What was counted of the job by an earlier turn or process."""
    readings = Readings(job.looked_at)
    for what, counts in job.not_read.items():
        readings.not_read[what].update(counts)
    return readings


def _append(path: Path, lines: list[bytes]) -> int:
    """How many bytes were added, and are on the disk."""
    added = b"".join(lines)
    if added:
        append_lines(path, added)
    return len(added)


def _cut_to(path: Path, size_bytes: int) -> None:
    """Cut the file to the bytes that are known to be good. Raises OSError if it has not even those."""
    path.touch(mode=0o600)
    if (found := path.stat().st_size) < size_bytes:
        raise OSError(f"{path.name} has {found:,} bytes and had {size_bytes:,}: it was cut short. Send the file again")
    os.truncate(path, size_bytes)


def _unreadable(folder: Path, error: Exception) -> Job:
    """A job of which nothing is known any more but that there was one."""
    _log.error("job.json cannot be read", job=folder.name, error=str(error))
    told = f"{error.error_count()} of its fields" if isinstance(error, ValidationError) else str(error)
    detail = f"job.json cannot be read ({told}); the files are kept in {folder.name}. Send the file again"
    now = time.time()
    return Job(
        id=folder.name,
        owner="",
        recipe="",
        evidence=False,
        created=folder.stat().st_mtime,
        lines=0,
        state=JobState.FAILED,
        detail=detail,
        ended=now,
    )
