"""A proxy of the environment is for the world outside; between services it is not asked."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bioverify.client import AsyncClient, Client
from bioverify.health import serves
from tests.fixtures import servers
from tests.fixtures.rewards import item, recipe, required
from tests.fixtures.stack import make_stack


@pytest.fixture(autouse=True)
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment that takes no connection, and nothing that is excepted from it."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{servers.free_port()}")
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def test_services_and_clients_speak_past_a_proxy_that_refuses() -> None:
    by = recipe(required("lookup"))
    with (
        servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}") as lookup,
        servers.aggregator({"lookup": lookup.target}, listen=f"127.0.0.1:{servers.free_port()}") as running,
        Client(running.target) as client,
    ):
        assert serves(running.target, servers.REWARD_SERVICE)
        assert client.score([item("a")], by).rewards[0].reward is not None
        async with AsyncClient(running.target) as asking:
            assert (await asking.score([item("a")], by)).rewards[0].reward is not None


def test_bioverify_up_gets_ready_and_its_gateway_scores_past_a_proxy_that_refuses(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "home", tmp_path / "state")
    try:
        stack.run_alone("up", "--only", "format", "--port-base", str(stack.port_base))
        asked = {
            "items": [{"prompt": "?", "completion": "<think>a</think> <answer>no</answer>"}],
            "weights": {"format": 1},
        }
        gateway = stack.processes()["gateway"].address
        done = httpx.post(f"http://{gateway}/v1/score", json=asked, trust_env=False, timeout=30)
        assert done.json()["rewards"][0]["reward"] is not None, done.text
    finally:
        stack.run_alone("down")
