"""A name with several addresses, like a headless service: calls are spread, and connections are made anew."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator

import grpc
import psutil

from bioverify.client import Client
from bioverify.transport.channels import channel_options
from bioverify.v1 import verifier_pb2, verifier_pb2_grpc
from tests.fixtures import servers

A, IN = 1, 1


@contextlib.contextmanager
def names(*addresses: str) -> Iterator[int]:
    """A name server for which every name has these addresses; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.1)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    asked, caller = udp.recvfrom(512)
                    question = asked[12 : asked.index(b"\0", 12) + 5]
                    kind = struct.unpack("!H", question[-4:-2])[0]
                    found = addresses if kind == A else ()
                    records = b"".join(
                        # 0xC00C: the name of the question.
                        struct.pack("!HHHIH", 0xC00C, A, IN, 1, 4) + socket.inet_aton(address)
                        for address in found
                    )
                    head = asked[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0)
                    udp.sendto(head + question + records, caller)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield udp.getsockname()[1]
        finally:
            over.set()
            thread.join()


def calls_of(host: str, metrics_port: int) -> int:
    text = urllib.request.urlopen(f"http://{host}:{metrics_port}/metrics").read().decode()
    counted = re.findall(r'^bioverify_rpc_calls_total\{.*method="[^"]*ListRecipes".*\} ([0-9.]+)$', text, re.MULTILINE)
    return sum(int(float(each)) for each in counted)


def test_a_client_spreads_its_calls_over_the_aggregators_of_a_name() -> None:
    port, metrics_port = servers.free_port(), servers.free_port()
    hosts = ("127.0.0.1", "127.0.0.2")
    with (
        servers.verifier("Text") as text,
        servers.aggregator({"text": text.target}, listen=f"{hosts[0]}:{port}", metrics_port=metrics_port),
        servers.aggregator({"text": text.target}, listen=f"{hosts[1]}:{port}", metrics_port=metrics_port),
        names(*hosts) as name_server,
        Client(f"dns://127.0.0.1:{name_server}/aggregator.test:{port}") as client,
    ):
        deadline = time.monotonic() + 20
        # Until both connections stand; then they take turns.
        while not all(calls_of(host, metrics_port) for host in hosts):
            assert time.monotonic() < deadline
            client.list_recipes()
        before = [calls_of(host, metrics_port) for host in hosts]
        for _ in range(20):
            client.list_recipes()
        after = [calls_of(host, metrics_port) for host in hosts]
        assert [late - early for late, early in zip(after, before, strict=True)] == [10, 10]


def test_a_connection_of_some_age_is_made_anew_and_no_call_is_lost() -> None:
    with servers.verifier("Lookup", listen=f"127.0.0.1:{servers.free_port()}", connection_age_s=0.5) as verifier:
        seen = set()
        with grpc.insecure_channel(verifier.target, options=channel_options(verifier.target)) as channel:
            stub = verifier_pb2_grpc.VerifierServiceStub(channel)
            deadline = time.monotonic() + 20
            while len(seen) < 4:
                assert time.monotonic() < deadline, seen
                stub.Describe(verifier_pb2.DescribeRequest(), timeout=5)
                seen |= {
                    each.laddr.port
                    for each in psutil.Process().net_connections("tcp")
                    if each.raddr and each.raddr.port == int(verifier.target.rpartition(":")[2])
                }
