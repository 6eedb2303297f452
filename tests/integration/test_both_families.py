"""Who listens everywhere answers callers of IPv4 and of IPv6, whichever of the two words it was told."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from bioverify.client import Client
from tests.fixtures import servers
from tests.fixtures.gateway import gateway
from tests.fixtures.rewards import item, recipe, required
from tests.fixtures.waiting import wait_until

EVERYWHERE = ["0.0.0.0", "[::]"]
LOOPBACKS = ["127.0.0.1", "[::1]"]

pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", EVERYWHERE)
def test_a_gateway_that_listens_everywhere_is_reached_by_both_families(tmp_path: Path, host: str) -> None:
    port = servers.free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fixtures.gateway.free_port", lambda: port)
        with gateway(tmp_path, "127.0.0.1:9", listen=f"{host}:{port}", open_to_anyone=True):
            for loopback in LOOPBACKS:
                answer = httpx.get(f"http://{loopback}:{port}/healthz", trust_env=False)
                assert answer.status_code == 200, answer.text


def test_a_gateway_whose_port_is_taken_says_so_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(AssertionError) as said,
            gateway(tmp_path, "127.0.0.1:9", listen=f"0.0.0.0:{port}", open_to_anyone=True),
        ):
            pass
    assert f"cannot listen on 0.0.0.0:{port}: " in str(said.value)
    assert "Traceback" not in str(said.value)


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_its_metrics_and_its_health_are_reached_by_both_families(host: str, workers: int) -> None:
    port, metrics, health = (servers.free_port() for _ in range(3))
    config = {"listen": f"{host}:{port}", "metrics_port": metrics, "workers": workers}
    if workers == 1:
        config["health_port"] = health
    with (
        servers.verifier("Lookup") as lookup,
        servers.aggregator({"lookup": lookup.target}, **config),
    ):
        for loopback in LOOPBACKS:
            with Client(f"{loopback}:{port}") as client:
                assert client.score([item("a")], recipe(required("lookup"))).rewards[0].reward is not None
            url = f"http://{loopback}:{metrics}/metrics"
            wait_until(lambda url=url: _page(url), f"metrics at {url}")
            if workers == 1:
                from bioverify.health import serves

                assert serves(f"{loopback}:{health}", "")


def _page(url: str) -> bool:
    try:
        return "bioverify_rpc_calls" in httpx.get(url, trust_env=False).text
    except httpx.TransportError:
        return False
