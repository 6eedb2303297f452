"""The life of a service process: alive before ready, refusals at the start, an orderly end, several workers."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
import urllib.request
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bioverify.runtime.config import ServerConfig
from bioverify.v1 import types_pb2, verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers
from tests.fixtures.waiting import wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def request(perturbation: str = "A", count: int = 1) -> verifier_pb2.VerifierServiceScoreBatchRequest:
    de = types_pb2.DifferentialExpression(perturbation=perturbation, measured_gene="B", cell_line="k562")
    items = [
        types_pb2.Item(id=str(index), task=types_pb2.Task(differential_expression=de), completion="")
        for index in range(count)
    ]
    return verifier_pb2.VerifierServiceScoreBatchRequest(items=items)


def is_alive(service: servers.Service) -> bool:
    with contextlib.suppress(grpc.RpcError):
        return service.health("") == SERVING
    return False


def test_a_service_is_alive_while_it_loads_and_ready_after() -> None:
    with servers.verifier("open_slowly", wait=False) as service:
        wait_until(lambda: is_alive(service))
        assert service.health() == NOT_SERVING
        with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as caught:
            verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch(request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "still being opened" in caught.value.details()
        service.wait_until_ready()


def test_a_missing_artifact_ends_the_process_with_one_clear_line() -> None:
    with servers.verifier("open_missing", wait=False) as service:
        assert service.process.wait(20) == 1
        plain = [line for line in service.log.splitlines() if not line.startswith("{")]
        assert plain == ["bioverify: artifact test-table: table.bin is missing. Run: bioverify data build lookup"]
        assert "table.bin is missing" in service.log_lines("refused to start")[0]["message"]


def test_a_verifier_whose_canary_scores_wrong_lives_and_never_gets_ready() -> None:
    with servers.verifier("Lookup", parameters={"canary_value": 0.123}, wait=False) as service:
        wait_until(lambda: bool(service.log_lines("the verifier withdraws: what it says cannot be trusted")))
        assert service.health("") == SERVING
        assert service.health() == NOT_SERVING
        with grpc.insecure_channel(service.target) as channel, pytest.raises(grpc.RpcError) as caught:
            verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch(request())
        assert "canary of lookup failed" in caught.value.details()


def test_sigterm_finishes_the_accepted_call_although_a_health_watch_is_open() -> None:
    with servers.verifier("Lookup") as service, grpc.insecure_channel(service.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types lack the methods
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service.name))
        assert next(watch).status == SERVING
        call = verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch.future(request("SLEEPS"))
        time.sleep(0.3)
        service.terminate()
        assert next(watch).status == NOT_SERVING
        assert len(call.result(timeout=5).outcomes) == 1
        assert service.process.wait(3) == 0


def test_a_call_after_sigterm_is_turned_away_in_a_way_that_clients_retry() -> None:
    with servers.verifier("Lookup") as service, grpc.insecure_channel(service.target) as channel:
        call = verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch.future(request("SLEEPS"))
        time.sleep(0.3)
        service.terminate()
        wait_until(lambda: bool(service.log_lines("draining")))
        with grpc.insecure_channel(service.target) as late_channel, pytest.raises(grpc.RpcError) as caught:
            verifier_pb2_grpc.VerifierServiceStub(late_channel).ScoreBatch(request(), timeout=2)
        # gRPC's own server cancels a call that it had taken up in the instant before; the aggregator retries both.
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert len(call.result(timeout=5).outcomes) == 1


def test_work_that_outlasts_the_grace_period_does_not_hold_the_process() -> None:
    with servers.verifier("Lookup", grace_s=0.3) as service, grpc.insecure_channel(service.target) as channel:
        call = verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch.future(request("SLEEPS", count=20))
        time.sleep(0.3)
        service.terminate()
        assert service.process.wait(3) == 0
        assert call.exception() is not None
        assert service.log_lines("grace period over")


def test_a_second_service_on_the_same_port_refuses_to_start() -> None:
    listen = f"127.0.0.1:{servers.free_port()}"
    with servers.verifier("Lookup", listen=listen), servers.verifier("Lookup", listen=listen, wait=False) as second:
        assert second.process.wait(20) == 1
        assert f"cannot listen on {listen}" in second.log


def test_a_worker_that_is_killed_is_replaced_and_all_end_at_sigterm() -> None:
    listen, metrics_port = f"127.0.0.1:{servers.free_port()}", servers.free_port()
    with servers.verifier("Lookup", listen=listen, metrics_port=metrics_port, workers=2) as service:
        parent = psutil.Process(service.process.pid)
        wait_until(lambda: len(service.log_lines("ready")) == 2)

        def score_on_new_connection() -> int:
            options = (("grpc.use_local_subchannel_pool", 1),)
            with grpc.insecure_channel(listen, options=options) as channel:
                return len(verifier_pb2_grpc.VerifierServiceStub(channel).ScoreBatch(request(), timeout=5).outcomes)

        assert [score_on_new_connection() for _ in range(20)] == [1] * 20

        def both_shown() -> bool:
            text = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics").read().decode()
            return 'bioverify_verifier_batch_items_count{verifier="lookup"} 20.0' in text

        wait_until(both_shown)
        workers = parent.children()
        assert len(workers) == 3  # two workers, and the process that sums their metrics up
        workers[0].send_signal(signal.SIGKILL)
        wait_until(lambda: len(service.log_lines("ready")) == 3)
        assert score_on_new_connection() == 1
        service.terminate()
        assert service.process.wait(5) == 0
        assert not any(worker.is_running() for worker in workers[1:])


def test_a_parent_that_is_killed_leaves_no_workers_behind() -> None:
    with servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}", workers=2) as service:
        workers = psutil.Process(service.process.pid).children()
        service.kill()
        wait_until(lambda: not any(worker.is_running() for worker in workers))


def test_workers_that_cannot_open_their_artifact_end_the_parent() -> None:
    listen = f"127.0.0.1:{servers.free_port()}"
    with servers.verifier("open_missing", listen=listen, workers=2, wait=False) as service:
        assert service.process.wait(20) == 1
        assert "table.bin is missing" in service.log


def test_settings_that_could_never_work_are_refused() -> None:
    with pytest.raises(ValueError, match="a full call would never be accepted"):
        ServerConfig(listen="127.0.0.1:0", max_items=100, max_items_in_flight=50)
    with pytest.raises(ValueError, match="not a unix socket"):
        ServerConfig(listen="unix:/s", workers=2)


def test_the_port_that_was_chosen_is_in_the_log() -> None:
    with servers.verifier("Lookup", listen="127.0.0.1:0", wait=False) as service:
        wait_until(lambda: bool(service.log_lines("ready")))
        host, port = service.log_lines("listening")[0]["target"].split(":")
        with socket.create_connection((host, int(port)), timeout=1):
            pass
