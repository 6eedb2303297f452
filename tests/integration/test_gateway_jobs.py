"""Files of completions through the gateway: nothing lost, nothing doubled, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from bioverify.gateway.api_keys import Scope, new_key, write_keys
from bioverify.transport.refusals import Refusal, refusal_metadata
from bioverify.v1 import reward_pb2, reward_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.gateway import RunningGateway, gateway
from tests.fixtures.servers import free_port, scratch_folder
from tests.integration.test_gateway import item, problem

ENDED = {"done", "cancelled", "failed"}


@pytest.fixture(scope="module")
def verifiers() -> Iterator[dict[str, str]]:
    """Small verifiers under the names that the recipe "rbio1-exp" asks for."""
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}) as lookup,
        servers.verifier("Text", parameters={"name": "format"}) as text,
    ):
        yield {"experimental": lookup.target, "format": text.target}


@pytest.fixture(scope="module")
def target(verifiers: dict[str, str]) -> Iterator[str]:
    with servers.aggregator(verifiers) as running:
        yield running.target


def lines(count: int) -> bytes:
    """Every third without a thought."""
    thoughts = [f"<think>{n}</think>" if n % 3 else str(n) for n in range(count)]
    rows = [item(f"GENE{n}", f"{thoughts[n]} <answer>yes</answer>", id=f"row-{n}") for n in range(count)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def send(running: RunningGateway, body: bytes, recipe: str = "rbio1-exp") -> str:
    answer = running.http.post("/v1/jobs", params={"recipe": recipe}, content=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def show(running: RunningGateway, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = running.http.get(f"/v1/jobs/{job_id}").json()
    return job


def wait(running: RunningGateway, job_id: str, states: set[str], timeout_s: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while (job := show(running, job_id))["state"] not in states:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def results(running: RunningGateway, job_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.http.get(f"/v1/jobs/{job_id}/results").text.splitlines()]


def test_a_file_is_scored_in_order_and_bad_lines_are_told_apart(target: str, tmp_path: Path) -> None:
    with gateway(tmp_path, target) as running:
        body = lines(3) + b'{"prompt": "no completion"}\n\n{"cut\n' + lines(2)
        job_id = send(running, body.rstrip(b"\n"))
        job = wait(running, job_id, ENDED)
        assert (job["state"], job["lines"], job["bad_lines"]) == ("done", 8, 2)
        assert job["scored"] + job["unscorable"] == 5
        assert [row["id"] for row in results(running, job_id)] == ["row-0", "row-1", "row-2", "row-0", "row-1"]
        bad = running.http.get(f"/v1/jobs/{job_id}/bad-lines").text.splitlines()
        assert [json.loads(line)["line"] for line in bad] == [4, 6]
        counted = running.http.get("/metrics").text
        for result in ("scored", "unscorable"):
            assert f'bioverify_http_job_lines_total{{result="{result}"}} {job[result]:.1f}' in counted
        assert 'bioverify_http_job_lines_total{result="bad"} 2.0' in counted


def test_a_download_is_taken_up_where_it_broke_off(target: str, tmp_path: Path) -> None:
    with gateway(tmp_path, target) as running:
        job_id = send(running, lines(20))
        wait(running, job_id, {"done"})
        url = f"/v1/jobs/{job_id}/results"
        whole = running.http.get(url).content
        part = running.http.get(url, headers={"range": "bytes=100-"})
        assert part.status_code == 206
        assert whole[:100] + part.content == whole
        assert part.headers["content-range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
        assert running.http.get(url, headers={"range": "bytes=5-9"}).content == whole[5:10]
        problem(running.http.get(url, headers={"range": f"bytes={len(whole)}-"}), 416)


def test_a_gateway_that_is_killed_twice_goes_on_without_loss_or_doubling(verifiers: dict[str, str]) -> None:
    count = 4000
    with (
        scratch_folder() as folder,
        servers.verifier("Lookup", parameters={"name": "experimental", "delay_s": 0.2}) as slow,
        servers.aggregator({**verifiers, "experimental": slow.target}) as aggregator,
    ):
        reached, job_id = 0, ""
        for _ in range(2):
            with gateway(folder, aggregator.target) as running:
                job_id = job_id or send(running, lines(count))
                deadline = time.monotonic() + 30
                while (line := show(running, job_id)["line"]) <= reached:
                    assert time.monotonic() < deadline, show(running, job_id)
                    time.sleep(0.01)
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
            assert line < count
            reached = line
            # What a crash in the midst of writing leaves behind.
            for name, torn in (("results.jsonl", b'{"id": "row-0", "rew'), (".job.json.partial", b'{"id": "')):
                with (folder / "gateway/jobs" / job_id / name).open("ab") as file:
                    file.write(torn)
        with gateway(folder, aggregator.target) as running:
            job = wait(running, job_id, ENDED)
            assert job["state"] == "done"
            assert [row["id"] for row in results(running, job_id)] == [f"row-{n}" for n in range(count)]
            # Counted once each, whichever process scored them.
            assert job["looked_at"] == count
            assert job["not_read"]["thought"] == {"no_thought": len(range(0, count, 3))}


def test_a_job_waits_for_an_aggregator_that_is_away(verifiers: dict[str, str], tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with gateway(tmp_path, listen) as running:
        with servers.aggregator(verifiers, listen=listen):
            first = send(running, lines(5))
            wait(running, first, {"done"})
        problem(running.http.post("/v1/jobs", content=lines(5)), 503)
    # A job that was taken in before the aggregator went away.
    stored = tmp_path / "gateway/jobs" / first / "job.json"
    job = json.loads(stored.read_text()) | {"state": "queued", "line": 0, "scored": 0, "unscorable": 0}
    stored.write_text(json.dumps(job | {"result_bytes": 0, "bad_line_bytes": 0, "ended": None}))
    with gateway(tmp_path, listen) as running:
        assert "no aggregator" in wait(running, first, {"waiting"})["detail"]
        with servers.aggregator(verifiers, listen=listen):
            wait(running, first, {"done"})
            assert [row["id"] for row in results(running, first)] == [f"row-{n}" for n in range(5)]


def test_a_job_can_be_cancelled_and_removed(verifiers: dict[str, str], tmp_path: Path) -> None:
    with (
        servers.verifier("Lookup", parameters={"name": "experimental", "delay_s": 0.3}) as slow,
        servers.aggregator({**verifiers, "experimental": slow.target}) as aggregator,
        gateway(tmp_path, aggregator.target) as running,
    ):
        job_id = send(running, lines(5000))
        problem(running.http.delete(f"/v1/jobs/{job_id}"), 409)
        running.http.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
        job = wait(running, job_id, ENDED)
        assert job["state"] == "cancelled"
        assert len(results(running, job_id)) == job["scored"] + job["unscorable"] < 5000
        problem(running.http.post(f"/v1/jobs/{job_id}:cancel"), 409)
        assert running.http.delete(f"/v1/jobs/{job_id}").status_code == 204
        problem(running.http.get(f"/v1/jobs/{job_id}"), 404)
        assert not (tmp_path / "gateway/jobs" / job_id).exists()


def test_a_job_is_removed_once_at_whatever_moment_of_its_ending_and_by_however_many(
    target: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, target) as running, futures.ThreadPoolExecutor(3) as pool:
        folder = tmp_path / "gateway/jobs"

        def remove_as_soon_as_possible(job_id: str) -> int:
            while (answer := running.http.delete(f"/v1/jobs/{job_id}")).status_code == 409:
                pass
            return answer.status_code

        for _ in range(60):
            # Without one readable line a job ends in the moment in which it begins.
            job_id = send(running, b"{}")
            statuses = sorted(pool.map(remove_as_soon_as_possible, [job_id] * 3))
            assert statuses[0] == 204, statuses
            assert set(statuses[1:]) <= {204, 404}, statuses
            assert not (folder / job_id).exists()


def test_no_path_leads_out_of_the_folder(target: str, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway/job.json").write_text("secret")
    with gateway(tmp_path, target) as running:
        for name in ("..", "%2e%2e", "..%2f..", "../../etc/passwd", "x" * 5000, "0123456789abcdeF", "%00", "a/b"):
            for path in (f"/v1/jobs/{name}", f"/v1/jobs/{name}/results", f"/v1/runs/{name}"):
                answer = running.http.get(path)
                assert answer.status_code in {404, 422} or answer.url.path in {"/v1/jobs", "/v1/runs"}, (path, answer)
                assert "secret" not in answer.text


def test_an_unknown_recipe_and_a_broken_upload_leave_nothing_behind(target: str, tmp_path: Path) -> None:
    with gateway(tmp_path, target, max_job_bytes=2000) as running:
        said = problem(running.http.post("/v1/jobs", params={"recipe": "none-such"}, content=b"{}"), 422)
        assert said["errors"][0]["field"] == "recipe"
        problem(running.http.post("/v1/jobs", params={"recipe": "rbio1-exp"}, content=lines(100)), 413)
        assert list((tmp_path / "gateway/jobs").iterdir()) == []
        assert running.http.get("/v1/jobs").json() == {"jobs": []}


def test_a_group_that_no_call_can_hold_is_bad_lines_with_its_numbers_and_the_job_ends(
    target: str, tmp_path: Path
) -> None:
    group = b"".join(json.dumps(item("A", f"{n}", group_id="g")).encode() + b"\n" for n in range(5000))
    with gateway(tmp_path, target) as running:
        job = wait(running, job_id := send(running, lines(2) + group + lines(3)), ENDED)
        assert (job["state"], job["bad_lines"], job["scored"] + job["unscorable"]) == ("done", 5000, 5)
        bad = [json.loads(line) for line in running.http.get(f"/v1/jobs/{job_id}/bad-lines").text.splitlines()]
        assert [line["line"] for line in bad] == list(range(3, 5003))
        assert "the group is larger than a call can be" in bad[0]["problem"]
        assert "at most 4,096 lines" in bad[0]["problem"]


class Choosy(reward_pb2_grpc.RewardServiceServicer):
    """An aggregator that has room for one recipe, too much to do for a second, and never room for a third."""

    OF_BUSY = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much to do", "overloaded", retry_after_s=300)
    OF_FULL = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "900 items, at most 10", "too_large")

    def ScoreBatch(self, request, context):  # noqa: N802
        if refusal := {"busy": self.OF_BUSY, "full": self.OF_FULL}.get(request.recipe_name):
            context.set_trailing_metadata(refusal_metadata(refusal))
            context.abort(refusal.code, refusal.message)
        rewards = [reward_pb2.Reward(item_id=one.id, reward=1.0) for one in request.items]
        return reward_pb2.RewardServiceScoreBatchResponse(rewards=rewards)

    def ListVerifiers(self, request, context):  # noqa: N802
        return reward_pb2.ListVerifiersResponse()

    def ListRecipes(self, request, context):  # noqa: N802
        term = reward_pb2.Term(verifier="v", weight=1, requirement=reward_pb2.REQUIREMENT_REQUIRED)
        recipes = [reward_pb2.Recipe(name=name, terms=[term]) for name in ("free", "busy", "full")]
        return reward_pb2.ListRecipesResponse(recipes=recipes)


@contextlib.contextmanager
def choosy() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    reward_pb2_grpc.add_RewardServiceServicer_to_server(Choosy(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_jobs_that_wait_hold_nobodys_place_and_what_cannot_pass_is_not_waited_for(tmp_path: Path) -> None:
    with choosy() as target, gateway(tmp_path, target) as running:
        waiting = [send(running, lines(3), "busy") for _ in range(4)]
        for job_id in waiting:
            assert "too much to do" in wait(running, job_id, {"waiting"})["detail"]
        assert wait(running, send(running, lines(3), "free"), ENDED)["scored"] == 3
        failed = wait(running, send(running, lines(3), "full"), ENDED)
        assert failed["state"] == "failed"
        assert "900 items, at most 10" in failed["detail"]
        # One that waits for five minutes is cancelled at once.
        assert running.http.post(f"/v1/jobs/{waiting[0]}:cancel").json()["state"] == "cancelled"
        assert running.http.delete(f"/v1/jobs/{waiting[0]}").status_code == 204
        problem(running.http.delete(f"/v1/jobs/{waiting[1]}"), 409)


def test_a_key_with_many_jobs_holds_no_other_key_back_and_has_a_bound(verifiers: dict[str, str]) -> None:
    texts = {name: new_key(name, (Scope.SCORE,)) for name in ("many", "one")}
    with (
        scratch_folder() as folder,
        servers.verifier("Lookup", parameters={"name": "experimental", "delay_s": 1.0}) as slow,
        servers.aggregator({**verifiers, "experimental": slow.target}) as aggregator,
    ):
        write_keys(folder / "keys.yaml", tuple(key for _, key in texts.values()))
        with gateway(folder, aggregator.target, keys_file=folder / "keys.yaml", max_jobs_per_key=6) as running:
            running.http.headers["authorization"] = f"Bearer {texts['many'][0]}"
            many = [send(running, lines(40_000)) for _ in range(6)]
            refused = problem(running.http.post("/v1/jobs?recipe=rbio1-exp", content=lines(1)), 429)
            assert (refused["code"], "6 at a time" in refused["detail"]) == ("too_many_jobs", True)
            running.http.headers["authorization"] = f"Bearer {texts['one'][0]}"
            assert wait(running, send(running, lines(5)), ENDED)["state"] == "done"
            running.http.headers["authorization"] = f"Bearer {texts['many'][0]}"
            assert all(show(running, job_id)["state"] not in ENDED for job_id in many)
            for job_id in many:
                running.http.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
                assert wait(running, job_id, ENDED)["state"] == "cancelled"


def test_what_is_no_job_is_left_alone_and_a_job_that_cannot_be_read_is_listed_as_failed(
    target: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, target) as running:
        good = send(running, lines(3))
        wait(running, good, {"done"})
    jobs = tmp_path / "gateway/jobs"
    stored = (jobs / good / "job.json").read_bytes()
    (jobs / "notes.txt").write_text("mine")
    (jobs / "lost+found").mkdir()
    (jobs / "lost+found" / "precious").write_text("mine")
    (jobs / ("a" * 16)).write_text("a file with the name of a job")
    (jobs / ("b" * 16)).symlink_to(jobs / "lost+found")
    damaged = {"1" * 16: b"", "2" * 16: stored[:-9], "3" * 16: stored, "4" * 16: b"[]", "5" * 16: None}
    for name, content in damaged.items():
        (jobs / name).mkdir()
        (jobs / name / "input.jsonl").write_bytes(lines(1))
        (jobs / name / "results.jsonl").write_text("{}")
        if content is not None:
            (jobs / name / "job.json").write_bytes(content)
    (jobs / ("6" * 16)).mkdir()
    (jobs / ("7" * 16) / "job.json").mkdir(parents=True)
    (jobs / ("8" * 16)).mkdir()
    (jobs / ("8" * 16) / "input.jsonl").write_bytes(b"{")
    (jobs / ("8" * 16) / ".job.json.partial").write_bytes(b"{")

    with gateway(tmp_path, target) as running:
        listed = {job["id"]: job for job in running.http.get("/v1/jobs").json()["jobs"]}
        assert listed.keys() == {good, "7" * 16, *damaged}
        for name in listed.keys() - {good}:
            assert (listed[name]["state"], "job.json cannot be read" in listed[name]["detail"]) == ("failed", True)
            assert (jobs / name).is_dir()
        assert len(results(running, good)) == 3
        assert running.http.delete(f"/v1/jobs/{'1' * 16}").status_code == 204
        wait(running, send(running, lines(2)), {"done"})
    assert not (jobs / ("1" * 16)).exists()
    assert (jobs / "3333333333333333" / "results.jsonl").read_text() == "{}"
    assert {(jobs / "notes.txt").read_text(), (jobs / "lost+found" / "precious").read_text()} == {"mine"}
    assert (jobs / ("a" * 16)).is_file()
    # Uploads that did not end, of which nobody was told.
    assert not (jobs / ("6" * 16)).exists()
    assert not (jobs / ("8" * 16)).exists()


def test_results_that_somebody_cut_short_are_neither_waited_for_nor_filled_up(target: str, tmp_path: Path) -> None:
    with gateway(tmp_path, target) as running:
        job_id = send(running, lines(20))
        job = wait(running, job_id, {"done"})
        path = tmp_path / "gateway/jobs" / job_id / "results.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        with pytest.raises(httpx.RemoteProtocolError):
            running.http.get(f"/v1/jobs/{job_id}/results", timeout=20)
        assert running.http.get("/healthz").is_success
    # As if it had been killed before its last chunk.
    stored = path.with_name("job.json")
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"state": "running", "ended": None}))
    with gateway(tmp_path, target) as running:
        ended = wait(running, job_id, ENDED)
        assert (ended["state"], ended["result_bytes"]) == ("failed", job["result_bytes"])
        assert "results.jsonl has 100 bytes" in ended["detail"]
    assert path.read_bytes() == whole[:100]


def test_a_file_that_finds_no_room_on_the_disk_is_refused_with_507_and_nothing_of_it_is_kept(
    target: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, target) as running:
        limits = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (50_000, limits[1]))
        said = problem(running.http.post("/v1/jobs", params={"recipe": "rbio1-exp"}, content=lines(1000)), 507)
        assert said["code"] == "disk_full"
        assert list((tmp_path / "gateway/jobs").iterdir()) == []
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, limits)
        wait(running, send(running, lines(5)), {"done"})


def test_a_job_that_finds_no_room_for_its_results_waits_and_is_finished_when_there_is(
    target: str, tmp_path: Path
) -> None:
    with gateway(tmp_path, target) as running:
        sent = lines(200)
        limits = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (len(sent) + 100, limits[1]))
        job_id = send(running, sent)
        waiting = wait(running, job_id, {"waiting", "failed", "done"})
        assert (waiting["state"], "no room for the results" in waiting["detail"]) == ("waiting", True)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, limits)
        done = wait(running, job_id, ENDED)
        assert (done["state"], done["scored"] + done["unscorable"]) == ("done", 200)
