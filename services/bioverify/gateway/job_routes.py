"""Jobs: files of completions too large for one call. Each belongs to the key that sent it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from bioverify.client import ClientError
from bioverify.core import DEFAULT_RECIPE
from bioverify.core.conversation import whole_completion
from bioverify.gateway import bodies
from bioverify.gateway.access import Scorer, charger, gateway_of
from bioverify.gateway.api_keys import Key, Scope
from bioverify.gateway.downloads import download
from bioverify.gateway.jobs import ENDED, NO_ROOM, Job, Jobs, TooManyJobsError
from bioverify.gateway.problems import ProblemError, of_client_error
from bioverify.gateway.routes import PROBLEMS
from bioverify.gateway.schemas import JobItemReply, JobsReply

JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
# Any bytes are taken in; what each line has to be is said line by line.
_LINES: dict[str, Any] = {"application/x-ndjson": {"schema": {}}}
_UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": _LINES}}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {200: {"content": _LINES}, 206: {"content": _LINES}}
router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=PROBLEMS)


@router.post("", status_code=202, openapi_extra=_UPLOAD)
async def send_job(
    request: Request,
    key: Scorer,
    recipe: Annotated[str, Query(max_length=256)] = DEFAULT_RECIPE,
    evidence: bool = True,
) -> Job:
    """Take in a file of JSON lines, one completion each, and score it in the background."""
    gateway, jobs = gateway_of(request), _jobs(request)
    try:
        recipes = await gateway.client.list_recipes()
    except ClientError as error:
        raise of_client_error(error) from error
    if recipe not in (names := [known.name for known in recipes]):
        problem = f"no recipe is called {recipe}; there are: {', '.join(names)}"
        raise ProblemError(422, "invalid_request", f"recipe: {problem}", [("recipe", problem)])
    with gateway.call(), _room_for_a_job():
        jobs.check_room(key.name)
        folder = await anyio.to_thread.run_sync(jobs.new_folder)
        try:
            lines, ended = 0, True
            async with await anyio.open_file(folder / "input.jsonl", "wb") as file:
                config = gateway.config
                async for piece in bodies.pieces(request, config.max_job_bytes, config.body_timeout_s):
                    lines += piece.count(b"\n")
                    ended = piece.endswith(b"\n") if piece else ended
                    await file.write(piece)
            lines += not ended
            _check_not_empty(lines)
            charger(request, key)(lines)
            return await anyio.to_thread.run_sync(
                jobs.submit, folder, key.name, recipe, evidence, lines, request.state.request_id
            )
        except BaseException:
            jobs.discard(folder)
            raise


@router.get("")
async def list_jobs(request: Request, key: Scorer) -> JobsReply:
    """One's own jobs, the latest first; with the scope admin everybody's."""
    jobs = _jobs(request).all()
    return JobsReply(jobs=[job for job in jobs if _may_see(key, job)])


@router.get("/{job_id}")
async def show_job(request: Request, job_id: JobId, key: Scorer) -> Job:
    """How far a job is."""
    return _job(request, job_id, key)


@router.post("/{job_id}:cancel")
async def cancel_job(request: Request, job_id: JobId, key: Scorer) -> Job:
    """Stop a job soon; what is scored can still be downloaded."""
    job = _job(request, job_id, key)
    if job.state in ENDED:
        raise ProblemError(409, "job_ended", f"job {job_id} is {job.state} already")
    _jobs(request).cancel(job)
    return job


@router.delete("/{job_id}", status_code=204)
async def remove_job(request: Request, job_id: JobId, key: Scorer) -> Response:
    """Remove an ended job with its files."""
    job = _job(request, job_id, key)
    if job.state not in ENDED:
        raise ProblemError(409, "job_running", f"job {job_id} is {job.state}; cancel it first")
    await anyio.to_thread.run_sync(_jobs(request).remove, job)
    return Response(status_code=204)


@router.get("/{job_id}/results", response_class=Response, responses=_DOWNLOAD)
async def job_results(request: Request, job_id: JobId, key: Scorer) -> Response:
    """The results so far, in the order of the file; a byte range takes up an interrupted download."""
    job = _job(request, job_id, key)
    path, size_bytes = _jobs(request).results(job)
    return download(path, size_bytes, f'"{job_id}"', request.headers.get("range"), f"{job_id}.results.jsonl")


@router.get("/{job_id}/bad-lines", response_class=Response, responses=_DOWNLOAD)
async def job_bad_lines(request: Request, job_id: JobId, key: Scorer) -> Response:
    """The lines that could not be read, by number, with what is wrong with each."""
    job = _job(request, job_id, key)
    path, size_bytes = _jobs(request).bad_lines(job)
    return download(path, size_bytes, f'"{job_id}"', request.headers.get("range"), f"{job_id}.bad_lines.jsonl")


@router.get("/{job_id}/items/{row}")
async def job_item(
    request: Request, job_id: JobId, row: Annotated[int, Path(ge=0, le=2**53)], key: Scorer
) -> JobItemReply:
    """What was asked and answered in the line that one result is of; ``row``: where the result stands, from 0."""
    job = _job(request, job_id, key)
    found = await anyio.to_thread.run_sync(_jobs(request).item, job, row)
    if found is None:
        raise ProblemError(404, "unknown_row", f"job {job_id} has no result in row {row} yet")
    line, item = found
    asked = item.score_item(str(line), "")
    return JobItemReply(
        line=line,
        id=str(line) if item.id is None else str(item.id),
        prompt="\n\n".join(turn.text for turn in item.prompt),
        completion=whole_completion(asked.completion, reasoning=asked.reasoning, prefix=asked.prefix),
        recipe=job.recipe,
    )


@contextmanager
def _room_for_a_job() -> Iterator[None]:
    try:
        yield
    except TooManyJobsError as error:
        raise ProblemError(429, "too_many_jobs", str(error), headers={"retry-after": "15"}) from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        detail = f"the gateway has no room for the file ({error.strerror}); nothing of it was kept. Send it again later"
        raise ProblemError(507, "disk_full", detail) from error


def _check_not_empty(lines: int) -> None:
    if not lines:
        problem = "is empty; send one JSON object per line"
        raise ProblemError(422, "invalid_request", f"body: {problem}", [("body", problem)])


def _jobs(request: Request) -> Jobs:
    jobs = gateway_of(request).jobs
    if jobs is None:
        raise ProblemError(404, "no_jobs", "this gateway keeps no jobs: it was started without a folder for them")
    return jobs


def _may_see(key: Key, job: Job) -> bool:
    return job.owner == key.name or Scope.ADMIN in key.scopes


def _job(request: Request, job_id: str, key: Key) -> Job:
    job = _jobs(request).get(job_id)
    # Somebody else's job is answered like none at all: its existence is nobody's business.
    if job is None or not _may_see(key, job):
        raise ProblemError(404, "unknown_job", f"there is no job {job_id}")
    return job
