"""A proxy of the environment is for the world outside; between services it is not asked."""

from __future__ import annotations

import pytest

from bioverify.client import AsyncClient, Client
from bioverify.health import serves
from tests.fixtures import servers
from tests.fixtures.rewards import item, recipe, required


async def test_services_and_clients_speak_past_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{servers.free_port()}")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
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
