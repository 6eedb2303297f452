"""The running stack: real items, faults, hardening, a training run. The tests leave it as they found it."""

from __future__ import annotations

import json

import httpx
import pytest

from bioverify.client import Client, ClientError, ScoredBatch, ScoreItem
from bioverify.core.outcomes import Failed
from bioverify.core.tasks import DifferentialExpression
from tests.compose.stack import PYTHON_SERVICES, ROOT, SELF_REPORT, Stack
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

PORTS = {"aggregator": [50050, 51050], "gateway": [50059], "cache": [6379]}
VOLUMES = {"gateway": ["/var/lib/jobs"]}
QUESTION = "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3?"
COMPLETION = "<think>AARS loss starves the cell; TRIB3 follows ATF4.</think> <answer>yes</answer>"


def score(stack: Stack, pairs: int = 40) -> ScoredBatch:
    genes = ["TRIB3", "ATF4", "HBA1", "HBB", "AARS", "GATA1", "MYC", "TP53"]
    items = [
        ScoreItem(str(n), COMPLETION, task=DifferentialExpression("AARS", genes[n % 8], "k562"), group_id=str(n % 8))
        for n in range(pairs)
    ]
    with Client(stack.target) as client:
        return client.score(items, recipe="all", deadline_s=20)


def outcomes(batch: ScoredBatch, verifier: str) -> list[object]:
    return [part.outcome for reward in batch.rewards for part in reward.parts if part.term.verifier == verifier]


def failures(batch: ScoredBatch) -> list[object]:
    return [part.outcome for reward in batch.rewards for part in reward.parts if isinstance(part.outcome, Failed)]


def _hits(batch: ScoredBatch) -> int:
    return sum(report.cache_hits for report in batch.verifiers)


def test_rewards_over_http_and_grpc_are_the_same(stack: Stack) -> None:
    body = {"items": [{"id": "1", "prompt": QUESTION, "completion": COMPLETION}], "recipe": "all"}
    answer = httpx.post(f"{stack.url}/v1/score", json=body, timeout=30).raise_for_status().json()
    with Client(stack.target) as client:
        batch = client.score(
            [ScoreItem("1", COMPLETION, task=DifferentialExpression("AARS", "TRIB3", "k562"))], recipe="all"
        )
    assert answer["rewards"][0]["reward"] == batch.rewards[0].reward
    assert batch.rewards[0].reward
    assert not failures(batch)
    assert "bioverify" in httpx.get(stack.url).text


@pytest.mark.parametrize("service", [*PYTHON_SERVICES, "cache"])
def test_a_container_can_do_no_more_than_serve(stack: Stack, service: str) -> None:
    container = stack.container(service)
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    status = b""
    while b"Uid" not in status:  # on a busy machine an old engine loses what a command printed
        _, status = container.exec_run(["cat" if service == "cache" else "python", *_reader(service)])
    fields = dict(line.split(":\t", 1) for line in status.decode().splitlines() if ":\t" in line)
    seen = {"uid": fields["Uid"].split()[0], "capabilities": fields["CapEff"]}
    assert seen["uid"] == ("999" if service == "cache" else "10001")
    assert int(seen["capabilities"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    code, output = container.exec_run(["python", "-c", SELF_REPORT])
    if code != 0 and service == "cache":
        pytest.skip("the official image of the cache has no Python to look around with")
    seen |= json.loads(output)
    stack.report.setdefault("containers", {})[service] = seen
    assert seen["ports"] == PORTS.get(service, [50051, 51051])
    assert set(seen["writable"]) == {"/dev/mqueue", "/dev/shm", "/tmp", *VOLUMES.get(service, [])}


def _reader(service: str) -> list[str]:
    return ["/proc/1/status"] if service == "cache" else ["-c", "print(open('/proc/1/status').read())"]


def test_folders_of_this_machine_are_labelled_for_selinux_and_cannot_be_written(stack: Stack) -> None:
    """Compose drops the label in silence if a mount is written otherwise; `docker compose config` still shows it."""
    (bound,) = stack.container("gateway").attrs["HostConfig"]["Binds"]
    assert bound == f"{ROOT / 'compose'}:/etc/bioverify:ro,z"


def test_only_the_two_doors_are_published_and_on_loopback(stack: Stack) -> None:
    published = {
        (service, bound["HostIp"])
        for service in (*PYTHON_SERVICES, "cache")
        for port in stack.container(service).attrs["NetworkSettings"]["Ports"].values()
        for bound in port or []
    }
    assert published == {("aggregator", "127.0.0.1"), ("gateway", "127.0.0.1")}


def test_a_verifier_reaches_nobody_outside_and_not_the_cache(stack: Stack) -> None:
    call = "import socket; socket.create_connection(({!r}, {}), 2)"
    for host, port in (("192.0.2.1", 443), ("cache", 6379), ("gateway", 50059)):
        code, said = stack.container("experimental").exec_run(["python", "-c", call.format(host, port)])
        assert code == 1, f"{host} was reached"
        assert b"rror: " in said  # no route, or no such name


def test_the_light_health_check_costs_less_than_half_of_the_command(stack: Stack) -> None:
    measure = """
import resource, subprocess, sys
times = 5
for _ in range(times):
    subprocess.run([sys.executable, *sys.argv[1:]], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print((used.ru_utime + used.ru_stime) / times)
"""
    question = ("127.0.0.1:50051", "bioverify.v1.VerifierService")
    costs = {}
    for name, command in {
        "python -m bioverify.health": ["-m", "bioverify.health", *question],
        "bioverify healthcheck": ["/opt/bioverify/bin/bioverify", "healthcheck", question[0], "--service", question[1]],
    }.items():
        code, output = stack.container("go-rouge").exec_run(["python", "-c", measure, *command])
        assert code == 0, output
        costs[name] = round(float(output), 3)
    stack.report.setdefault("figures", {})["CPU seconds of a health check"] = costs
    assert costs["python -m bioverify.health"] < costs["bioverify healthcheck"] / 2


def test_a_killed_verifier_fails_its_outcomes_and_comes_back(stack: Stack) -> None:
    before = score(stack)
    assert not failures(before)
    verifier = stack.container("experimental")
    verifier.kill()
    stack.container("cache").exec_run(["valkey-cli", "flushall"])
    during = score(stack)
    lost = outcomes(during, "experimental")
    assert lost
    assert all(isinstance(outcome, Failed) for outcome in lost)
    assert failures(during) == lost
    assert not [
        part for reward in during.rewards for part in reward.parts if part.contribution == 0 and part.outcome in lost
    ]
    verifier.start()
    with stack.timed("verifier killed, started, answers"):
        wait_until(lambda: not failures(score(stack)), "the verifier's outcomes are back")
    assert [reward.reward for reward in score(stack).rewards] == [reward.reward for reward in before.rewards]


def test_a_killed_cache_costs_misses_and_no_errors(stack: Stack) -> None:
    wait_until(lambda: _hits(score(stack)) > 0, "the cache hits")
    warm = score(stack)
    cache = stack.container("cache")
    cache.kill()
    cold = score(stack)
    assert not failures(cold)
    assert _hits(cold) == 0
    assert [reward.reward for reward in cold.rewards] == [reward.reward for reward in warm.rewards]
    cache.start()
    with stack.timed("cache killed, started, hits"):
        wait_until(lambda: _hits(score(stack)) > 0, "the cache hits again")


def test_a_killed_aggregator_is_a_clear_error_and_comes_back(stack: Stack) -> None:
    aggregator = stack.container("aggregator")
    aggregator.kill()
    try:
        with pytest.raises(ClientError):
            score(stack, pairs=1)
        ready = httpx.get(f"{stack.url}/readyz", timeout=30)
    finally:
        aggregator.start()
    assert ready.status_code in {503, 504}  # refused, or its name leads nowhere within the deadline
    assert ready.headers["content-type"].startswith("application/problem+json")
    with stack.timed("aggregator killed, started, ready"):
        wait_until(lambda: httpx.get(f"{stack.url}/readyz", timeout=30).is_success, "the gateway is ready")
    assert not failures(score(stack))


@pytest.mark.parametrize("service", ["go-rouge", "cache", "aggregator", "gateway"])
def test_the_engine_starts_again_what_crashed(stack: Stack, service: str) -> None:
    stack.crash(service)
    with stack.timed(f"{service} crashed, healthy again"):
        stack.wait_healthy(service)
    wait_until(lambda: httpx.get(f"{stack.url}/readyz", timeout=30).is_success, "the gateway is ready")
    wait_until(lambda: not failures(score(stack)), "no outcome fails")


def test_the_cache_has_a_limit_and_forgets_the_least_used(stack: Stack) -> None:
    def setting(name: str) -> str:
        _, said = stack.container("cache").exec_run(["valkey-cli", "config", "get", name])
        return str(said.decode().split()[-1])

    assert setting("maxmemory") == str(256 * 2**20)
    assert setting("maxmemory-policy") == "allkeys-lru"
    assert setting("save") == "save"  # an empty value: nothing is written to a disk


def test_three_steps_are_trained_and_the_gateway_shows_them(stack: Stack) -> None:
    changes = ["grpo.max_steps=3", "grpo.save_steps=3", "grpo.num_generations=2", "grpo.per_device_train_batch_size=2"]
    changes += ["grpo.max_completion_length=24", "launcher.threads=1"]
    options = [word for change in changes for word in ("--set", change)]
    train = ("train", "rbio1-exp", "--preset=cpu", "--target=aggregator:50050", "--output=/runs/three", *options)
    with stack.timed("three steps of training"):
        stack.compose("--profile", "train", "run", "--rm", "--no-deps", "trainer", *train, timeout_s=800)
    run = httpx.get(f"{stack.url}/v1/runs/three", timeout=30).raise_for_status().json()
    steps = [line for line in run["metrics"] if "reward" in line]
    assert len(steps) == 3
