"""TLS between the services: who is let in, and certificates that are replaced while work goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from typer.testing import CliRunner

from bioverify.cli import app
from bioverify.client import AsyncClient, Client, ClientError, ScoredBatch, TlsError, TlsIdentity
from bioverify.core.outcomes import Failed, Scored
from bioverify.health import serves
from bioverify.transport.tls import ENVIRONMENT
from tests.fixtures import servers
from tests.fixtures.certificates import identity_in, issue
from tests.fixtures.gateway import gateway
from tests.fixtures.proxy import proxied
from tests.fixtures.rewards import item, many_items, outcome_of, recipe, required
from tests.fixtures.servers import REWARD_SERVICE, VERIFIER_SERVICE, free_port
from tests.fixtures.waiting import wait_until

BY = recipe(required("text"))
QUESTION = "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3?"
COMPLETION = "<think>so</think> <answer>yes</answer>"


def secured(identity: TlsIdentity, **config: object) -> dict[str, object]:
    """Settings of a test service on TCP, with its health in plaintext on another port."""
    return {
        "listen": f"127.0.0.1:{free_port()}",
        "health_port": free_port(),
        "tls": [str(file) for file in identity.files],
        **config,
    }


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ours(authority, tmp_path_factory) -> TlsIdentity:
    return issue(tmp_path_factory.mktemp("ours"), authority)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> TlsIdentity:
    """Trusts our services, and shows a certificate that nobody here knows."""
    return issue(tmp_path_factory.mktemp("foreign"), trustme.CA())


@pytest.fixture(scope="module")
def verifier(ours) -> Iterator[servers.Service]:
    with servers.verifier("Text", **secured(ours)) as running:
        yield running


@pytest.fixture(scope="module")
def aggregator(ours, verifier) -> Iterator[servers.Service]:
    with servers.aggregator({"text": verifier.target}, **secured(ours)) as running:
        yield running


def test_the_whole_stack_of_commands_scores_over_mutual_tls(tmp_path, ours) -> None:
    options = [f"--tls-certificate={ours.certificate}", f"--tls-key={ours.key}", f"--tls-ca={ours.ca}"]
    form, rewards, health = (f"127.0.0.1:{free_port()}" for _ in range(3))
    with (
        servers.verifier("Lookup", parameters={"name": "experimental"}, **secured(ours)) as screen,
        command("serve", "format", f"--listen={form}", *options),
        command(
            "aggregate",
            f"--verifier=format={form}",
            f"--verifier=experimental={screen.target}",
            f"--listen={rewards}",
            f"--health-port={health.rpartition(':')[2]}",
            *options,
        ),
    ):
        wait_until(lambda: serves(form, VERIFIER_SERVICE, tls=ours), "the verifier is ready")
        wait_until(lambda: serves(health, REWARD_SERVICE), "the aggregator's plaintext health says ready")

        run = CliRunner()
        assert run.invoke(app, ["healthcheck", rewards, f"--service={REWARD_SERVICE}", *options]).exit_code == 0
        assert run.invoke(app, ["healthcheck", rewards]).exit_code == 1
        # As a container's fixed health command gets them.
        by_environment = dict(zip(ENVIRONMENT, map(str, ours.files), strict=True))
        assert run.invoke(app, ["healthcheck", rewards], env=by_environment).exit_code == 0

        lines = tmp_path / "lines.jsonl"
        lines.write_text(json.dumps({"prompt": QUESTION, "completion": COMPLETION}) + "\n")
        scored = run.invoke(app, ["score", str(lines), "--recipe=rbio1-exp", "--target", rewards, *options])
        assert "1 scored by rbio1-exp: mean reward" in scored.output, scored.output

        settings = {"certificate": str(ours.certificate), "key": str(ours.key), "ca": str(ours.ca)}
        with gateway(tmp_path, rewards, identity=settings) as web:
            asked = {"items": [{"completion": COMPLETION}], "weights": {"format": 1}}
            answer = web.http.post("/v1/score", json=asked)
            assert answer.status_code == 200
            assert answer.json()["rewards"][0]["reward"] > 0
            job = web.http.post("/v1/jobs?recipe=rbio1-exp", content=lines.read_bytes()).json()
            wait_until(lambda: web.http.get(f"/v1/jobs/{job['id']}").json()["state"] == "done", "the job is done")


@contextmanager
def command(*arguments: str) -> Iterator[None]:
    """`bioverify …` in a process of its own, ended with SIGTERM."""
    process = subprocess.Popen([sys.executable, "-m", "bioverify.cli", *arguments], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("who", ["plaintext", "no certificate", "foreign certificate"])
@pytest.mark.parametrize("whom", ["verifier", "aggregator"])
def test_a_stranger_is_refused(who, whom, ours, foreign, tmp_path, request) -> None:
    service = request.getfixturevalue(whom)
    trusting = ours.ca.read_bytes()
    credentials = {
        "plaintext": None,
        "no certificate": grpc.ssl_channel_credentials(trusting),
        "foreign certificate": grpc.ssl_channel_credentials(
            trusting, foreign.key.read_bytes(), foreign.certificate.read_bytes()
        ),
    }[who]
    opened = (
        grpc.insecure_channel(service.target)
        if credentials is None
        else grpc.secure_channel(service.target, credentials)
    )
    with opened as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert serves(service.target, service.name, tls=ours)


def test_a_client_does_not_speak_to_a_server_of_another_authority(aggregator, foreign) -> None:
    with Client(aggregator.target, tls=foreign) as client, pytest.raises(ClientError, match="certificates of one"):
        client.score([item("1")], BY, deadline_s=5)


def test_a_client_without_an_identity_is_told_what_to_look_at(aggregator) -> None:
    with Client(aggregator.target) as client, pytest.raises(ClientError, match="speak TLS"):
        client.score([item("1")], BY, deadline_s=5)


def test_the_health_port_gives_health_in_plaintext_and_nothing_else(verifier) -> None:
    assert serves(verifier.health_target, VERIFIER_SERVICE)
    with grpc.insecure_channel(verifier.health_target) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{VERIFIER_SERVICE}/Describe")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_aggregator_with_a_foreign_certificate_gets_failures_and_no_numbers(verifier, foreign) -> None:
    with (
        servers.aggregator({"text": verifier.target}, **secured(foreign)) as running,
        Client(running.target, tls=foreign) as client,
    ):
        [reward] = client.score([item("1")], BY, deadline_s=5).rewards
    assert reward.reward is None
    assert isinstance(outcome_of(reward, "text"), Failed)


def test_an_identity_whose_files_do_not_belong_together_is_refused_at_the_start(ours, foreign, tmp_path) -> None:
    mixed = TlsIdentity(ours.certificate, foreign.key, ours.ca)
    with pytest.raises(TlsError, match=f"{ours.certificate} and {foreign.key} are no pair"):
        Client("127.0.0.1:1", tls=mixed)
    with pytest.raises(TlsError, match="nowhere"):
        Client("127.0.0.1:1", tls=identity_in(tmp_path / "nowhere"))
    with pytest.raises(TlsError, match="together"):
        TlsIdentity.from_environment({"BIOVERIFY_TLS_KEY": "/k"})
    with servers.verifier("Text", wait=False, **secured(mixed)) as running:
        assert running.process.wait(30) == 1
        assert "are no pair" in running.log


class Load:
    """Calls that go on in threads, of the blocking and of the asyncio client, and what failed in them."""

    def __init__(self, target: str, identity: TlsIdentity) -> None:
        self.calls = 0
        self.problems: list[str] = []
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._blocking, args=(target, identity)),
            threading.Thread(target=self._asyncio, args=(target, identity)),
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def go_on(self) -> None:
        """Until two more calls have come through, so that one of them began after this."""
        before = self.calls
        wait_until(lambda: self.calls >= before + 2, "calls come through")

    def _blocking(self, target: str, identity: TlsIdentity) -> None:
        with Client(target, tls=identity) as client:
            while not self._ending.is_set():
                try:
                    self._note(client.score(many_items(20, seed=self.calls), BY))
                except ClientError as error:
                    self.problems.append(str(error))

    def _asyncio(self, target: str, identity: TlsIdentity) -> None:
        async def go() -> None:
            async with AsyncClient(target, tls=identity) as client:
                while not self._ending.is_set():
                    try:
                        self._note(await client.score(many_items(20, seed=self.calls + 1), BY))
                    except ClientError as error:
                        self.problems.append(str(error))

        asyncio.run(go())

    def _note(self, batch: ScoredBatch) -> None:
        self.calls += 1
        self.problems += [
            f"{reward.id}: {reward.unscorable_because or reward.parts}"
            for reward in batch.rewards
            if not isinstance(outcome_of(reward, "text"), Scored)
        ]


def shown_certificate(target: str, identity: TlsIdentity) -> bytes:
    """The certificate with which a server answers a handshake now."""
    context = ssl.create_default_context(cafile=str(identity.ca))
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def identities_read(log: Path) -> int:
    """How often an identity of the service was read again from its files."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return sum((line["logger"], line["level"]) == ("bioverify.tls", "info") for line in lines)


def test_certificates_and_authority_are_replaced_under_load_without_a_failed_item(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "bioverify.tls")
    old, new = trustme.CA(), trustme.CA()
    folders = {who: tmp_path / who for who in ("verifier", "aggregator", "caller")}

    def everyone(authority: trustme.CA, *trusted: trustme.CA) -> None:
        for folder in folders.values():
            issue(folder, authority, trusted)

    everyone(old)
    first = issue(tmp_path / "first", old)
    identities = {who: identity_in(folder) for who, folder in folders.items()}
    of_verifier = secured(identities["verifier"])
    times = 0
    with ExitStack() as verifiers:
        verifier = verifiers.enter_context(servers.verifier("Text", **of_verifier))
        with (
            servers.aggregator({"text": verifier.target}, **secured(identities["aggregator"])) as running,
            Load(running.target, identities["caller"]) as load,
        ):

            def wait_until_everyone_has_read() -> None:
                """A server looks when it is spoken to, a caller when it calls; the aggregator does both."""
                nonlocal times
                times += 1

                def has_read() -> bool:
                    for service in (verifier, running):
                        shown_certificate(service.target, identities["caller"])
                    read = [identities_read(verifier.log_path), identities_read(running.log_path)]
                    here = sum(record.name == "bioverify.tls" for record in caplog.records)
                    return [*read, here] == [times, 2 * times, 2 * times]

                wait_until(has_read, "verifier, aggregator and both callers have read their files")
                load.go_on()

            load.go_on()
            before = shown_certificate(running.target, first)
            everyone(old)
            wait_until_everyone_has_read()
            assert shown_certificate(running.target, first) != before
            # To another authority in the three steps that keep everybody able to speak with everybody.
            everyone(old, old, new)
            wait_until_everyone_has_read()
            everyone(new, old, new)
            wait_until_everyone_has_read()
            everyone(new, new)
            wait_until_everyone_has_read()
            assert not serves(running.target, REWARD_SERVICE, tls=first)
            assert load.problems == []

            # A verifier that starts now knows the new authority only: the aggregator's calls reach it as well.
            verifiers.close()
            verifiers.enter_context(servers.verifier("Text", **of_verifier))
            with Client(running.target, tls=identities["caller"]) as client:
                wait_until(
                    lambda: client.score([item("1")], BY).rewards[0].reward is not None, "the new verifier answers"
                )


def test_files_that_do_not_fit_together_change_nothing_and_the_next_that_do_are_taken(tmp_path) -> None:
    authority = trustme.CA()
    identity = issue(tmp_path / "identity", authority)
    key = identity.key.read_bytes()
    with (
        servers.verifier("Text", **secured(identity)) as verifier,
        servers.aggregator({"text": verifier.target}, **secured(identity)) as running,
        Client(running.target, tls=identity) as client,
    ):
        seen = shown_certificate(running.target, identity)
        good = issue(tmp_path / "good", authority)
        identity.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())

        def was_refused() -> bool:
            assert client.score([item("1")], BY).rewards[0].reward is not None
            assert shown_certificate(running.target, good) == seen
            return "are no pair" in running.log

        wait_until(was_refused, "the aggregator has looked at files that do not fit")
        assert was_refused()

        identity.key.write_bytes(key)
        issue(tmp_path / "identity", authority)

        def is_taken() -> bool:
            assert client.score([item("2")], BY).rewards[0].reward is not None
            return shown_certificate(running.target, good) != seen

        wait_until(is_taken, "the aggregator shows the new certificate")
        assert is_taken()


def test_the_cache_is_spoken_to_over_tls_and_shown_the_certificate_that_lies_there_now(tmp_path, verifier) -> None:
    old, new = trustme.CA(), trustme.CA()
    identity = issue(tmp_path / "identity", old, (old, new))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    old.issue_cert("127.0.0.1").configure_cert(context)
    old.configure_trust(context)
    with (
        servers.verifier("Text", **secured(identity)) as verifier,
        servers.valkey_on_port(free_port()) as plain,
        proxied(plain.removeprefix("redis://"), tls=context) as proxy,
        servers.aggregator(
            {"text": verifier.target}, redis_url=f"rediss://{proxy.target}/0", cache_timeout_s=2.0, **secured(identity)
        ) as running,
        Client(running.target, tls=identity) as client,
    ):
        client.score(many_items(20), BY)
        report = client.score(many_items(20), BY).verifiers[0]
        assert report.cache_hits == report.distinct > 0

        new.configure_trust(context)
        connections = proxy.connections
        issue(tmp_path / "identity", new, (old, new))

        def connects_anew() -> bool:
            report = client.score(many_items(20), BY).verifiers[0]
            assert report.cache_hits == report.distinct > 0
            return proxy.connections > connections

        wait_until(connects_anew, "the cache is spoken to with the new certificate")
