"""Jobs in this process, before an aggregator that does as it is told: what is kept, in which order, and whose turn."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from prometheus_client import REGISTRY

from bioverify.gateway import jobs as module
from bioverify.gateway.jobs import ENDED, Job, Jobs, JobState, TooManyJobsError
from bioverify.transport.refusals import Refusal, refusal_metadata
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from tests.fixtures.certificates import issue
from tests.fixtures.waiting import wait_until


class Told(reward_pb2_grpc.RewardServiceServicer):
    """``gate``: calls are answered when it is set. ``refusals``: of the next calls. The answer "none" has no reward."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.refusals: list[Refusal] = []
        self.calls: list[reward_pb2.RewardServiceScoreBatchRequest] = []
        self.request_ids: list[str] = []
        self.recipes = ["r"]

    def ScoreBatch(self, request, context):  # noqa: N802
        self.calls.append(request)
        self.request_ids.append(dict(context.invocation_metadata()).get("x-request-id", ""))
        if self.refusals:
            refusal = self.refusals.pop(0)
            context.set_trailing_metadata(refusal_metadata(refusal))
            context.abort(refusal.code, refusal.message)
        self.gate.wait(20)
        rewards = [
            reward_pb2.Reward(item_id=one.id, unscorable_because="no reason")
            if "none" in one.completion
            else reward_pb2.Reward(item_id=one.id, reward=0.5)
            for one in request.items
        ]
        return reward_pb2.RewardServiceScoreBatchResponse(rewards=rewards)

    def ListRecipes(self, request, context):  # noqa: N802
        term = reward_pb2.Term(verifier="v", weight=1, requirement=reward_pb2.REQUIREMENT_REQUIRED)
        return reward_pb2.ListRecipesResponse(
            recipes=[reward_pb2.Recipe(name=name, terms=[term]) for name in self.recipes]
        )

    @property
    def asked(self) -> list[str]:
        """The answers that were sent, in order."""
        texts = [item.completion for call in self.calls for item in call.items]
        return [text.removeprefix("<answer>").removesuffix("</answer>") for text in texts]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def target(told: Told) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    reward_pb2_grpc.add_RewardServiceServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    told.gate.set()
    server.stop(None)


@contextlib.contextmanager
def opened(folder: Path, target: str, *, keep_s: float = 3600, most_per_key: int = 10) -> Iterator[Jobs]:
    jobs = Jobs(folder / "jobs", target, keep_s, most_per_key)
    try:
        yield jobs
    finally:
        jobs.close()


def line(name: str, **more: Any) -> bytes:
    return json.dumps({"id": name, "prompt": "Is it so?", "completion": f"<answer>{name}</answer>", **more}).encode()


def sent(jobs: Jobs, *lines: bytes, owner: str = "me", recipe: str = "r", evidence: bool = True) -> Job:
    folder = jobs.new_folder()
    (folder / "input.jsonl").write_bytes(b"\n".join(lines))
    return jobs.submit(folder, owner, recipe, evidence, len(lines), "request-1")


def ended(jobs: Jobs, job: Job) -> Job:
    wait_until(lambda: job.state in ENDED, f"job {job.state}: {job.detail}")
    return job


def counted_lines() -> list[float]:
    """Lines so far that the metrics call scored, unscorable and bad."""
    counts = [
        REGISTRY.get_sample_value("bioverify_http_job_lines_total", {"result": result})
        for result in ("scored", "unscorable", "bad")
    ]
    return [count for count in counts if count is not None]


def kept(place: tuple[Path, int]) -> list[dict[str, Any]]:
    path, size_bytes = place
    content = path.read_bytes()
    assert len(content) == size_bytes
    return [json.loads(one) for one in content.splitlines()]


def test_results_stand_in_the_order_of_the_file_and_everything_is_counted(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 3)
    lines = [line(f"{n}") for n in range(5)] + [b"{", line("none-1"), b"", line("6", rubbish=1), b'{"id": "x"}']
    counted = counted_lines()
    began = time.time()
    with opened(tmp_path, target) as jobs:
        job = ended(jobs, sent(jobs, *lines, evidence=False))
        assert (job.state, job.detail, job.owner, job.recipe, job.evidence) == ("done", "", "me", "r", False)
        assert (job.lines, job.line, job.scored, job.unscorable, job.bad_lines) == (10, 10, 6, 1, 2)
        assert [now - then for now, then in zip(counted_lines(), counted, strict=True)] == [6, 1, 2]
        assert job.unread_keys == ["rubbish"]
        assert job.started is not None
        assert job.ended is not None
        assert began <= job.created <= job.started <= job.ended <= time.time()
        results = kept(jobs.results(job))
        assert [one["id"] for one in results] == ["0", "1", "2", "3", "4", "none-1", "6"]
        assert [one["reward"] for one in results] == [0.5] * 5 + [None, 0.5]
        # The line of each result, past an empty line and two that were refused.
        found = [jobs.item(job, row) for row in range(8)]
        assert [one and one[0] for one in found] == [1, 2, 3, 4, 5, 7, 9, None]
        assert [one and one[1].id for one in found] == ["0", "1", "2", "3", "4", "none-1", "6", None]
        bad = kept(jobs.bad_lines(job))
        assert [one["line"] for one in bad] == [6, 10]
        assert all(one["problem"] for one in bad)
        assert [len(call.items) for call in told.calls] == [3, 3, 1]
        assert {call.omit_evidence for call in told.calls} == {True}
        assert set(told.request_ids) == {"request-1"}
        stored = tmp_path / "jobs" / job.id / "job.json"
        assert Job.model_validate_json(stored.read_bytes()) == job
        assert jobs.get(job.id) is job
        assert jobs.all() == [job]
        jobs.remove(job)
        assert (jobs.get(job.id), jobs.all(), stored.parent.exists()) == (None, [], False)


def test_a_job_is_taken_up_where_it_was_and_what_lies_behind_that_is_cut_off(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 2)
    with opened(tmp_path, target) as jobs:
        job = ended(jobs, sent(jobs, b"{", *(line(f"{n}") for n in range(6)), b"{"))
        whole, bad = jobs.results(job)[0].read_bytes(), jobs.bad_lines(job)[0].read_bytes()
    # As after a kill: two lines are known to be good, and half of a third was written.
    lines = whole.splitlines(keepends=True)
    good, good_bad = b"".join(lines[:2]), bad.splitlines(keepends=True)[0]
    folder = tmp_path / "jobs" / job.id
    (folder / "results.jsonl").write_bytes(good + lines[2][:20])
    (folder / "bad_lines.jsonl").write_bytes(good_bad + b"half")
    marks = {"line": 3, "result_bytes": len(good), "bad_line_bytes": len(good_bad), "scored": 2, "bad_lines": 1}
    again = job.model_copy(update={**marks, "state": JobState.RUNNING, "ended": None})
    (folder / "job.json").write_text(again.model_dump_json())
    told.calls.clear()
    with opened(tmp_path, target) as jobs:
        found = jobs.get(job.id)
        assert found is not None
        assert ended(jobs, found).state == "done"
        assert jobs.results(found)[0].read_bytes() == whole
        assert jobs.bad_lines(found)[0].read_bytes() == bad
        assert (found.scored, found.bad_lines, found.line) == (6, 2, 8)
        assert found.started == job.started
    assert sorted(told.asked) == ["2", "3", "4", "5"]


def test_a_file_that_was_cut_short_ends_the_job(told: Told, target: str, tmp_path: Path) -> None:
    with opened(tmp_path, target) as jobs:
        job = ended(jobs, sent(jobs, line("a")))
    folder = tmp_path / "jobs" / job.id
    size_bytes = job.result_bytes
    (folder / "results.jsonl").write_bytes(b"short")
    (folder / "job.json").write_text(job.model_copy(update={"state": JobState.QUEUED, "ended": None}).model_dump_json())
    with opened(tmp_path, target) as jobs:
        found = jobs.get(job.id)
        assert found is not None
        assert ended(jobs, found).state == "failed"
        assert found.detail == (
            f"results.jsonl has 5 bytes and had {size_bytes:,}: it was cut short. Send the file again"
        )


BUSY = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much to do", "overloaded", retry_after_s=1.0)
TOO_LARGE = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "900 items, at most 10", "too_large")


def test_a_job_waits_while_a_refusal_may_pass_and_ends_with_one_that_cannot(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the client does not wait for its end itself.
    monkeypatch.setattr(module, "CHUNK_DEADLINE_S", 0.5)
    told.refusals = [BUSY] * 2
    with opened(tmp_path, target) as jobs:
        job = sent(jobs, line("a"))
        wait_until(lambda: job.state == "waiting")
        assert "too much to do" in job.detail
        assert ended(jobs, job).state == "done"
        assert (told.refusals, len(told.calls)) == ([], 3)
        assert (job.detail, job.scored) == ("", 1)
        told.refusals = [TOO_LARGE]
        failed = ended(jobs, sent(jobs, line("b")))
        assert failed.state == "failed"
        assert "900 items, at most 10" in failed.detail


def test_a_recipe_that_is_gone_ends_the_job(told: Told, target: str, tmp_path: Path) -> None:
    with opened(tmp_path, target) as jobs:
        job = ended(jobs, sent(jobs, line("a"), recipe="gone"))
    assert (job.state, job.detail) == ("failed", "the aggregator has no recipe gone any more")


def test_a_fault_of_our_own_ends_the_job_and_not_its_worker(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, target) as jobs:
        with monkeypatch.context() as broken:
            broken.setattr(module, "output_line", None)
            for _ in range(3):
                job = ended(jobs, sent(jobs, line("a")))
                assert (job.state, job.detail) == ("failed", "a fault of the gateway: TypeError")
        assert ended(jobs, sent(jobs, line("a"))).state == "done"


def test_owners_take_turns_and_each_has_a_bound_of_jobs_under_way(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOBS_AT_ONCE", 1)
    told.gate.clear()
    with opened(tmp_path, target, most_per_key=4) as jobs:
        many = [sent(jobs, line(f"many-{n}"), owner="many") for n in range(4)]
        wait_until(lambda: len(told.calls) == 1)
        with pytest.raises(TooManyJobsError, match="4 jobs are under way; a key may have 4 at a time"):
            jobs.check_room("many")
        folder = jobs.new_folder()
        (folder / "input.jsonl").write_bytes(line("x"))
        with pytest.raises(TooManyJobsError):
            jobs.submit(folder, "many", "r", True, 1, "")
        jobs.discard(folder)
        assert not folder.exists()
        one = sent(jobs, line("one"), owner="one")
        assert (one.state, many[3].state) == ("queued", "queued")
        # A job that nobody works at is cancelled at once.
        jobs.cancel(many[2])
        assert many[2].state == "cancelled"
        jobs.check_room("many")
        told.gate.set()
        for job in (*many, one):
            ended(jobs, job)
        assert told.asked == ["many-0", "many-1", "one", "many-3"]
        assert {job.state for job in (*many[:2], many[3], one)} == {"done"}
        assert jobs.all() == [one, *many[::-1]]


def test_a_job_that_is_cancelled_at_work_keeps_what_is_scored(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 1)
    told.gate.clear()
    with opened(tmp_path, target) as jobs:
        job = sent(jobs, *(line(f"{n}") for n in range(50)))
        wait_until(lambda: len(told.calls) == 2)
        assert job.state == "running"
        jobs.cancel(job)
        told.gate.set()
        assert ended(jobs, job).state == "cancelled"
        assert len(kept(jobs.results(job))) == job.scored == job.line < 50
        assert ended(jobs, sent(jobs, line("next"))).state == "done"


def test_a_gateway_that_ends_leaves_its_jobs_to_the_next_one(
    told: Told, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 1)
    told.gate.clear()
    with opened(tmp_path, target) as jobs:
        at_work = [sent(jobs, *(line(f"{n}") for n in range(20))) for _ in range(2)]
        wait_until(lambda: len(told.calls) == 4)
        queued = sent(jobs, line("queued"))
        threading.Timer(0.2, told.gate.set).start()
    for job in (*at_work, queued):
        assert json.loads((tmp_path / "jobs" / job.id / "job.json").read_text())["ended"] is None
    with opened(tmp_path, target) as jobs:
        for job in (*at_work, queued):
            found = jobs.get(job.id)
            assert found is not None
            assert (ended(jobs, found).state, found.scored) == ("done", found.lines)


def test_ended_jobs_are_forgotten_after_their_time_and_others_are_not(told: Told, target: str, tmp_path: Path) -> None:
    with opened(tmp_path, target, keep_s=0.0) as jobs:
        old = ended(jobs, sent(jobs, line("a")))
        told.gate.clear()
        at_work = sent(jobs, line("b"))
        assert [job.id for job in jobs.all()] == [at_work.id]
        assert not (tmp_path / "jobs" / old.id).exists()
        told.gate.set()
        ended(jobs, at_work)
    with opened(tmp_path, target, keep_s=3600) as jobs:
        assert [job.id for job in jobs.all()] == [at_work.id]


def test_what_is_no_job_is_left_alone_and_what_cannot_be_read_is_a_failed_job(
    told: Told, target: str, tmp_path: Path
) -> None:
    with opened(tmp_path, target) as jobs:
        good = ended(jobs, sent(jobs, line("a")))
    folder = tmp_path / "jobs"
    assert folder.stat().st_mode & 0o777 == 0o700
    stored = (folder / good.id / "job.json").read_bytes()
    (folder / "notes.txt").write_text("mine")
    (folder / ("a" * 16)).write_text("a file")
    (folder / ("b" * 16)).symlink_to(folder / good.id)
    (folder / ("c" * 16)).mkdir()
    (folder / ("d" * 16)).mkdir()
    (folder / ("d" * 16) / "input.jsonl").write_bytes(b"{")
    for name, content in (("1", b""), ("2", stored), ("3", stored.replace(b'"lines":1', b'"lines":"x"'))):
        (folder / (name * 16)).mkdir()
        (folder / (name * 16) / "job.json").write_bytes(content)
    (folder / ("4" * 16)).mkdir()
    (folder / ("4" * 16) / "results.jsonl").write_text("{}")
    with opened(tmp_path, target) as jobs:
        listed = {job.id: job for job in jobs.all()}
        assert listed.keys() == {good.id, *(name * 16 for name in "1234")}
        for name in "1234":
            job = listed[name * 16]
            assert (job.state, job.owner, job.recipe, job.lines) == ("failed", "", "", 0)
            assert job.ended is not None
            assert job.detail.startswith("job.json cannot be read (")
            assert job.detail.endswith(f"); the files are kept in {name * 16}. Send the file again")
        assert f"it is of job {good.id}" in listed["2" * 16].detail
        assert "(1 of its fields)" in listed["3" * 16].detail
    assert {path.name for path in folder.iterdir()} == {
        "notes.txt", "a" * 16, "b" * 16, good.id, *(name * 16 for name in "1234")
    }  # fmt: skip


def test_a_job_shows_the_aggregator_the_gateways_certificate(told: Told, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    ours = issue(tmp_path / "tls", trustme.CA())
    server = grpc.server(futures.ThreadPoolExecutor(2))
    reward_pb2_grpc.add_RewardServiceServicer_to_server(told, server)
    credentials = grpc.ssl_server_credentials(
        [(ours.key.read_bytes(), ours.certificate.read_bytes())], ours.ca.read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    jobs = Jobs(tmp_path / "jobs", f"127.0.0.1:{port}", 3600, 10, ours)
    try:
        job = ended(jobs, sent(jobs, line("a")))
        assert (job.state, job.scored) == ("done", 1)
    finally:
        jobs.close()
        server.stop(None)
