"""What the trainer keeps and goes on with, killed twice: answers, the record of a run, the start of one, its keeper."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from bioverify.artifacts.store import ArtifactStore
from bioverify.core.runs import RunState
from bioverify.files import read_lines
from bioverify_trainer.runs.folder import RunFolder, read_records
from bioverify_trainer.service.keeper import FOLDER, write
from bioverify_trainer.service.local import LocalLauncher
from tests.fixtures import killing
from tests.fixtures.waiting import wait_until
from tests.trainer.test_labelling import small_file

SAMPLES = 2


@dataclass
class Model:
    """Behind an endpoint: answers ``left`` questions, and leaves all others without an answer."""

    left: int = 0
    address: str = ""
    asked: list[str] = field(default_factory=list)
    stuck: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_answer(self, question: str) -> bool:
        with self._lock:
            self.left -= 1
            if self.left < 0:
                self.stuck.set()
                return False
            self.asked.append(question)
            return True


@pytest.fixture
def model() -> Iterator[Model]:
    served, ending = Model(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not served.may_answer(body["messages"][-1]["content"]):
                ending.wait()
                return
            choice = {"message": {"role": "assistant", "content": "<think> t </think> <answer> yes </answer>"}}
            text = json.dumps({"choices": [choice] * body["n"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.address = f"http://127.0.0.1:{server.server_port}/v1"
        yield served
        ending.set()
        server.shutdown()


EVALUATE = """
import sys
from bioverify_trainer.cli import app
from bioverify_trainer.evaluate import completions, labelling
app()
"""


@pytest.mark.parametrize("task", ["de", "cell-type"])
def test_answers_that_were_kept_outlive_every_further_kill_and_no_question_is_asked_for_them_again(
    task: str, model: Model, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOVERIFY_HOME", str(store.root.parent))
    output = tmp_path / "eval"
    arguments = ["eval", "--model", f"{model.address}#known", "--task", task, "--batch", "4", "--samples", str(SAMPLES)]
    arguments += ["--max-tokens", "8", "--no-baselines", "--resamples", "5", "--output", str(output)]
    if task == "cell-type":
        arguments += ["--cells", str(small_file(tmp_path / "cells.h5ad")), "--label", "kind"]

    def kept() -> Counter[bytes]:
        [file] = output.rglob("*known.jsonl")
        return Counter(
            orjson.dumps(line.get("observation", line.get("task"))) for line in map(orjson.loads, read_lines(file))
        )

    def kill_at_question(n: int) -> None:
        model.left = n
        model.stuck.clear()
        process = subprocess.Popen([sys.executable, "-m", "bioverify_trainer", *arguments], stderr=subprocess.DEVNULL)
        assert model.stuck.wait(120)
        process.kill()
        process.wait()

    kill_at_question(8)
    assert sorted(kept().values()) == [SAMPLES] * 8
    [file] = output.rglob("*known.jsonl")
    # As if it had been killed within the last line: one question has a sample too few.
    file.write_bytes(file.read_bytes()[:-5])
    before = kept()
    complete = {question for question, n in before.items() if n == SAMPLES}
    assert len(complete) == 7

    kill_at_question(0)
    assert {question for question, n in kept().items() if n == SAMPLES} == complete

    with killing.script(EVALUATE, output) as evaluate:
        model.left = 1000
        # Whatever it writes anew ends at the 400th byte; the answers have more.
        assert file.stat().st_size > 800
        file.write_bytes(file.read_bytes() + file.read_bytes()[:10])
        assert evaluate.run(*arguments, at_byte=400) == -signal.SIGXFSZ
        assert {question for question, n in kept().items() if n == SAMPLES} == complete
        model.left = 1000
        model.asked.clear()
        assert evaluate.run(*arguments) == 0

    assert set(kept().values()) == {SAMPLES}
    assert kept().keys() > complete
    assert len(model.asked) == len(kept()) - len(complete)


RECORD = """
import sys
from pathlib import Path
from bioverify_trainer.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    folder.append_metrics({"step": step, "loss": step / 7})
    folder.append_sample({"step": step, "completion": "x" * 20})
"""
RESUME = """
import sys
from pathlib import Path
from bioverify_trainer.runs.folder import RunFolder
RunFolder(Path(sys.argv[1])).forget_after(int(sys.argv[2]))
"""


def test_the_record_of_a_run_that_is_killed_twice_lacks_no_step_and_has_none_twice(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with killing.script(RECORD, folder.path) as record, killing.script(RESUME, folder.path) as resume:
        # The samples' lines are longer, so that one of them is cut.
        assert record.run(folder.path, 1, 100, at_byte=1000) == -signal.SIGXFSZ
        reached = read_records(folder.metrics_file)[-1]["step"]
        assert [line["step"] for line in read_records(folder.samples_file)] == [*range(1, reached)]
        for _ in resume.at_every_step(folder.path, reached - 2):
            assert [line["step"] for line in read_records(folder.metrics_file)][: reached - 2] == [
                *range(1, reached - 1)
            ]
        assert record.run(folder.path, reached - 1, 100, at_byte=2000) == -signal.SIGXFSZ
        again = read_records(folder.samples_file)[-1]["step"]
        assert again > reached
        assert resume.run(folder.path, again) == 0
        assert record.run(folder.path, again + 1, 101) == 0
    for file in (folder.metrics_file, folder.samples_file):
        assert [line["step"] for line in read_records(file)] == [*range(1, 101)]
        assert len(file.read_bytes().splitlines()) == 100


START = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from bioverify_trainer.service.launching import LaunchError, Order
from bioverify_trainer.service.local import LocalLauncher
launcher = LocalLauncher(Path(sys.argv[1]), target="127.0.0.1:1", most_at_once=1)
order = Order("first", "rbio1-exp", "none-such", (), datetime.now(UTC), 3)
try:
    launcher.start(order)
except LaunchError as error:
    if "already" not in str(error):
        raise
"""


def test_a_start_that_is_killed_at_any_step_leaves_a_run_that_is_known_or_a_name_that_is_free(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with killing.script(START, runs) as start:
        known = [len(LocalLauncher(runs, target="", most_at_once=1).runs()) for _ in start.at_every_step(runs)]
    # Known as soon as the order lies there whole; until then the next start with that name succeeded.
    assert known == sorted(known)
    assert known[0] == 0
    launcher = LocalLauncher(runs, target="", most_at_once=1)
    assert [run.name for run in launcher.runs()] == ["first"]
    # A start that was killed after it had begun the keeper has a run that ends by itself: there is no such preset.
    wait_until(lambda: launcher.runs()[0].state is RunState.FAILED, "the run has ended")
    assert not list((runs / "first" / FOLDER).glob("*.partial"))


KEEP = """
import sys
from pathlib import Path
from bioverify_trainer.service import keeper
keeper.main(Path(sys.argv[1]))
"""


def test_a_keeper_that_is_killed_at_any_step_leaves_whole_files_and_the_next_one_says_how_the_run_ended(
    tmp_path: Path,
) -> None:
    run = tmp_path / "runs" / "first"
    folder = run / FOLDER
    folder.mkdir(parents=True)
    order = {"name": "first", "recipe": "r", "preset": "p", "changes": [], "max_steps": 1}
    command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    write(folder / "order.json", {**order, "started_at": datetime.now(UTC).isoformat(), "command": command})
    with killing.script(KEEP, run) as keep:
        steps = 0
        for _ in keep.at_every_step(run):
            steps += 1
            for file in folder.glob("*.json"):
                assert isinstance(json.loads(file.read_text()), dict)
            states = {one.state for one in LocalLauncher(tmp_path / "runs", target="", most_at_once=1).runs()}
            assert states <= {RunState.RUNNING, RunState.FAILED}
    assert steps >= 6
    assert json.loads((folder / "ended.json").read_text()) == {"status": 3, "was_stopped": False}
