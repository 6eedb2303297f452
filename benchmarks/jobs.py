"""A large file through the gateway: how long, in how much memory, and what a kill costs.

The same file is sent twice. The first job runs undisturbed; the gateway's memory is read as it goes, because flat means
that it does not grow with the file. During the second the gateway is killed with SIGKILL and started again; its results
have to be those of the first, line by line, none lost and none twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer

from benchmarks.items import GROUP_SIZE, Questions
from benchmarks.measuring import machine, running_stack
from bioverify.artifacts.store import ArtifactStore

RECIPE = "rbio1-exp"
DRAWN_AT_ONCE = 2000
KILLED_AT = (0.25, 0.6)
"""Shares of the file after which the gateway is killed."""


class Gateway:
    """`bioverify gateway` in a process of its own, which may be killed and started again."""

    def __init__(self, target: str, port: int, folder: Path) -> None:
        self._command = [sys.executable, "-m", "bioverify.cli", "gateway", f"--listen=127.0.0.1:{port}"]
        self._command += [f"--target={target}", f"--folder={folder}"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=600)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/healthz").is_success:
                    return
            time.sleep(0.1)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def memory_mb(self, field: str) -> float:
        """``VmRSS``: resident now; ``VmHWM``: the most that it ever was."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)
        assert found is not None
        return round(int(found[1]) / 1000, 1)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, file: Path) -> str:
        with file.open("rb") as body:
            answer = self.http.post("/v1/jobs", params={"recipe": RECIPE, "evidence": False}, content=body)
        job_id: str = answer.raise_for_status().json()["id"]
        return job_id

    def show(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return job

    def digest(self, job_id: str) -> tuple[int, list[str], str]:
        """Lines of the results, their ids, and one hash of ids and rewards."""
        ids, content = [], hashlib.sha256()
        with self.http.stream("GET", f"/v1/jobs/{job_id}/results") as answer:
            for line in answer.iter_lines():
                row = orjson.loads(line)
                ids.append(row["id"])
                content.update(f"{row['id']} {row['reward']!r}\n".encode())
        return len(ids), ids, content.hexdigest()


def write_file(path: Path, count: int) -> list[str]:
    """A file of ``count`` completions over real questions; the ids in its order."""
    questions = Questions(ArtifactStore.default())
    ids = []
    with path.open("wb") as file:
        for start in range(0, count, DRAWN_AT_ONCE):
            for item in questions.draw(min(DRAWN_AT_ONCE, count - start), seed=start):
                prompt = [{"role": message.role, "content": message.content} for message in item.prompt]
                row = {"id": item.id, "group_id": item.group_id, "prompt": prompt, "completion": item.completion}
                file.write(orjson.dumps(row) + b"\n")
                ids.append(item.id)
    return ids


def undisturbed(gateway: Gateway, file: Path, count: int) -> tuple[dict[str, Any], str]:
    before_mb, before_s = gateway.memory_mb("VmRSS"), gateway.cpu_s()
    started = time.monotonic()
    job_id = gateway.send(file)
    sent_s = time.monotonic() - started
    seen: dict[str, float] = {}
    while (job := gateway.show(job_id))["state"] not in {"done", "failed"}:
        seen.setdefault(f"{int(10 * job['line'] / count) * 10} %", gateway.memory_mb("VmRSS"))
        time.sleep(0.2)
    wall_s = time.monotonic() - started
    if job["state"] != "done":
        raise SystemExit(f"the job failed: {job['detail']}")
    return {
        "sending_s": round(sent_s, 1),
        "scoring_s": round(wall_s - sent_s, 1),
        "lines_per_s": round(count / (wall_s - sent_s)),
        "gateway_cpu_s": round(gateway.cpu_s() - before_s, 1),
        "scored": job["scored"],
        "unscorable": job["unscorable"],
        "memory_mb": {"before": before_mb, "at": seen, "peak": gateway.memory_mb("VmHWM")},
    }, job_id


def killed(gateway: Gateway, file: Path, count: int) -> tuple[dict[str, Any], str]:
    started = time.monotonic()
    job_id = gateway.send(file)
    kills = []
    for share in KILLED_AT:
        while (job := gateway.show(job_id))["line"] < share * count:
            time.sleep(0.05)
        gateway.kill()
        at = time.monotonic()
        gateway.start()
        kills.append({"after_lines": job["line"], "up_again_s": round(time.monotonic() - at, 1)})
    while (job := gateway.show(job_id))["state"] not in {"done", "failed"}:
        time.sleep(0.2)
    return {"kills": kills, "wall_s": round(time.monotonic() - started, 1), "state": job["state"]}, job_id


def main(
    count: Annotated[int, typer.Option(help="Completions in the file.")] = 100_000,
    port_base: Annotated[int, typer.Option(help="Ports of the stack that is started for this.")] = 22050,
    target: Annotated[str | None, typer.Option(help="A running aggregator, instead of a stack of its own.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")] = Path("reports/jobs.json"),
) -> None:
    """A file of completions as a job, undisturbed and with the gateway killed twice."""
    measured: dict[str, Any] = {"machine": machine(), "completions": count, "group_size": GROUP_SIZE, "recipe": RECIPE}
    with tempfile.TemporaryDirectory() as scratch, _aggregator(target, port_base) as address:
        file = Path(scratch) / "completions.jsonl"
        ids = write_file(file, count)
        measured["file_mb"] = round(file.stat().st_size / 1e6, 1)
        gateway = Gateway(address, port_base + 19, Path(scratch) / "gateway")
        try:
            measured["undisturbed"], first = undisturbed(gateway, file, count)
            print(json.dumps(measured["undisturbed"]), flush=True)
            measured["killed"], second = killed(gateway, file, count)
            n_first, ids_first, digest_first = gateway.digest(first)
            n_second, ids_second, digest_second = gateway.digest(second)
        finally:
            gateway.kill()
    measured["killed"] |= {
        "lost": len(set(ids) - set(ids_second)),
        "doubled": n_second - len(set(ids_second)),
        "in_order": ids_first == ids_second == ids,
        "same_rewards": digest_first == digest_second,
    }
    measured["load_at_end"] = round(os.getloadavg()[0], 2)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured["killed"]))
    print(f"Written: {output}")
    if n_first != count or not (measured["killed"]["in_order"] and measured["killed"]["same_rewards"]):
        raise SystemExit("lines were lost, doubled or scored otherwise")


@contextlib.contextmanager
def _aggregator(target: str | None, port_base: int) -> Iterator[str]:
    if target is not None:
        yield target
        return
    with running_stack(port_base) as (address, _):
        yield address


if __name__ == "__main__":
    typer.run(main)
