"""A stranger's session: an empty home, no data, no network, and what README and the documents tell them to type.

Every command and every block of Python is run in the order in which it stands, README first, and held against what is
shown of its output; each block of YAML is read as the settings that it is. What is not run here is listed with the
reason. `make test-stranger` writes the session to reports/session.md, and the figures to reports/session.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bioverify.artifacts.store import ArtifactStore
from bioverify.cli.build_settings import read_build_settings
from bioverify.cli.services import VERIFIERS
from bioverify.gateway.config import make_config
from bioverify.ports import HOST, PORT_BASE
from bioverify.stack import free_port_base
from tests.stranger.documents import CODE, DOCUMENTS, ROOT, Block, Command, blocks, commands, differs

pytestmark = pytest.mark.stranger
README = ROOT / "README.md"

NOT_RUN = {
    r"make (setup|try|demo|test|bench|release)\b": "a target of the Makefile: CI begins with setup and runs the tests",
    r"(REGISTRY=\S+ )?docker |(kubectl|helm) |cd k8s/|cp \.env": "needs a Docker engine or a cluster",
    r"apt-get|cd kubernetes-|cp /usr/share|mkdir -p \.go|printf |PATH=/usr/lib/go|KUBEBUILDER": "builds Kubernetes",
    r"uv |pip |\.venv-frameworks/|BIOVERIFY_FRAMEWORKS": "installs packages",
    r"cd examples/verifier-node|npm ": "make test-node runs it",
    r"bioverify verifier |pytest gene_age|bioverify (serve|aggregate) .*1506|bioverify score gene_age": (
        "tests/integration/test_scaffold.py runs it"
    ),
    r"bioverify (serve|aggregate) .*--tls|grpcurl -cacert": "tests/integration/test_mtls.py runs it",
    r"bioverify train (?!.*--dry-run)|OTEL_|bioverify (eval|runs|report|compare-recipes)": (
        "minutes or hours; tests/trainer runs them"
    ),
    r"(curl|bioverify healthcheck) .*127\.0\.0\.1:5\d{4}": "of the stack in containers",
    r"bioverify data (fetch|push|build .*(--source|data push))": "needs a bucket, a download or a file of your own",
    r"python -m benchmarks|python -m bioverify\.verifiers": "hours of computing, or a download",
    r"bioverify check-text examples/chains": "tests/unit/test_known_chains.py runs it, with the whole Gene Ontology",
    r"grep -[lh] ": "looks for what is not in the logs of a session without faults",
}
OF_THE_GATEWAY = "docs/http.md"
OF_A_BUILD = (
    "docs/artifacts.md",
    "services/bioverify/verifiers/claims/README.md",
    "services/bioverify/verifiers/esm_mlp/README.md",
)


@dataclass
class Stranger:
    """Someone with a clone and an installed package, and with nothing else."""

    home: Path
    clone: Path
    port_base: int
    said: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    n_run: dict[str, int] = field(default_factory=dict)
    first_score_s: float | None = None

    @property
    def environment(self) -> dict[str, str]:
        binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        nobody = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
        local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "TMPDIR") if name in os.environ}
        return (
            {"HOME": str(self.home), "PATH": binaries, "COLUMNS": "400", "OMP_NUM_THREADS": "1"} | nobody | local | kept
        )

    def here(self, text: str) -> str:
        """With the ports of this stack in the place of those that are shown."""
        moved = re.sub(
            rf"{re.escape(HOST)}:(150\d\d)\b", lambda at: f"{HOST}:{int(at[1]) - PORT_BASE + self.port_base}", text
        )
        return re.sub(r"^bioverify (try|up)\b", rf"bioverify \1 --port-base {self.port_base}", moved)

    def types(self, command: Command) -> str:
        """Run it in a shell; what it prints. Fails unless it ends with 0 and prints what is shown."""
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", self.here(command.text)],
            env=self.environment,
            cwd=self.clone,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        self._keep(command.place, f"$ {command.text}\n{done.stdout}{done.stderr}", time.monotonic() - started)
        assert done.returncode == 0, f"{command.place}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        self._compare(command.place, done.stdout, command.shown)
        return done.stdout

    def runs(self, block: Block, names: dict[str, Any]) -> None:
        """Execute a block of Python among the names of the document's earlier ones."""
        started, printed = time.monotonic(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self.here(block.code), block.place, "exec"), names)
        self._keep(block.place, f">>> {block.code}\n{printed.getvalue()}", time.monotonic() - started)
        self._compare(block.place, printed.getvalue(), block.shown)

    def counts(self, block: Block) -> None:
        self.n_run[block.language] = self.n_run.get(block.language, 0) + 1

    def _keep(self, place: str, text: str, seconds: float) -> None:
        self.said.append(f"### {place}\n\n```text\n{text.rstrip()}\n```\n\n{seconds:.1f} s\n")
        self.seconds[place] = round(seconds, 1)

    def _compare(self, place: str, printed: str, shown: str | None) -> None:
        if shown is not None:
            difference = differs(printed, shown, self.port_base, PORT_BASE)
            assert not difference, f"{place}: it prints something else\n{difference}"

    def writes(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        head = f"# A stranger's session\n\nFirst score after {self.first_score_s} s. Blocks run: {self.n_run}.\n"
        (folder / "session.md").write_text("\n".join([head, *self.said]), encoding="utf-8")
        figures = {"first_score_s": self.first_score_s, "blocks_run": self.n_run, "seconds": self.seconds}
        (folder / "session.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    folder = tmp_path_factory.mktemp("stranger")
    one = Stranger(folder / "home", folder / "clone", free_port_base(VERIFIERS))
    one.home.mkdir()
    (one.clone / "examples").mkdir(parents=True)
    for name in ("completions.jsonl", "first_score.ipynb"):
        if (ROOT / "examples" / name).exists():
            shutil.copy(ROOT / "examples" / name, one.clone / "examples" / name)
    with pytest.MonkeyPatch.context() as here:
        for name in [name for name in os.environ if name.startswith(("BIOVERIFY_", "XDG_"))]:
            here.delenv(name)
        for name, value in one.environment.items():
            here.setenv(name, value)
        here.chdir(one.clone)
        try:
            yield one
        finally:
            subprocess.run([sys.executable, "-m", "bioverify.cli", "down"], env=one.environment, check=False)
            one.writes(ROOT / "reports")


def why_not_run(command: Command) -> str:
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command.text, re.DOTALL)), "")


# The whole session, with a build of every artifact in it.
@pytest.mark.timeout(1200)
def test_what_readme_and_the_documents_show_is_what_happens(stranger: Stranger) -> None:
    for document in DOCUMENTS:
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks(document):
            if block.language == "python":
                stranger.runs(block, names)
                stranger.counts(block)
            elif block.language == "console":
                typed = [command for command in commands(block) if not why_not_run(command)]
                for command in typed:
                    printed = stranger.types(command)
                    if command.text == "bioverify try":
                        told = re.search(r"First score after (\d+) s", printed)
                        assert told, printed
                        stranger.first_score_s = float(told[1])
                if typed:
                    stranger.counts(block)
    assert stranger.first_score_s is not None
    # Fewer would mean that blocks are no longer found.
    assert stranger.n_run["python"] >= 5
    assert stranger.n_run["console"] >= 8


def test_the_notebook_prints_what_it_shows(stranger: Stranger) -> None:
    notebook = json.loads((stranger.clone / "examples/first_score.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        printed = "".join(text for output in cell["outputs"] for text in output["text"])
        code = "".join(cell["source"])
        stranger.runs(Block(ROOT / f"examples/first_score.ipynb#{cell['id']}", 1, "python", code, printed), names)


def test_the_rewards_that_readme_tells_of_the_examples_are_those_of_the_session(stranger: Stranger) -> None:
    scored = [json.loads(line) for line in (stranger.clone / "scored.jsonl").read_text().splitlines()]
    assert [(one["id"], f"{one['reward']:.3f}") for one in scored] == told_rewards()[1]


def test_with_the_real_screen_the_rewards_are_those_that_readme_tells(
    real_store: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/artifacts").symlink_to(real_store.root)
    folders = {"BIOVERIFY_HOME": str(tmp_path / "home"), "BIOVERIFY_STATE": str(tmp_path / "state")}
    environment = os.environ | folders
    base = free_port_base(VERIFIERS)
    bioverify = [sys.executable, "-m", "bioverify.cli"]
    output = tmp_path / "scored.jsonl"
    steps = [
        ["up", "--recipe", "rbio1-exp", "--no-gateway", "--port-base", str(base)],
        ["score", str(ROOT / "examples/completions.jsonl"), "--recipe", "rbio1-exp", "--output", str(output)],
    ]
    try:
        for step in steps:
            done = subprocess.run([*bioverify, *step], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run([*bioverify, "down"], env=environment, check=False)
    scored = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(one["id"], f"{one['reward']:.3f}") for one in scored] == told_rewards()[0]


def told_rewards() -> list[list[tuple[str, str]]]:
    """Of README's two tables of the examples: with PerturbQA, and with what ships."""
    tables = re.findall(r"\| id \| reward \|.*?\n\n", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(tables) == 2
    return [re.findall(r"^\| (\w+) \| ([\d.]+) \|", table, re.MULTILINE) for table in tables]


@pytest.mark.parametrize(
    "block",
    [one for document in DOCUMENTS for one in blocks(document) if one.language == "yaml"],
    ids=lambda block: block.place,
)
def test_settings_that_are_shown_are_settings_that_are_read(stranger: Stranger, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(block.code, encoding="utf-8")
    document = str(block.document.relative_to(ROOT))
    if document == OF_THE_GATEWAY:
        make_config(file, {})
    else:
        assert document in OF_A_BUILD, f"{block.place}: say which settings these are"
        read_build_settings(file)
    stranger.counts(block)


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    consoles = [one for document in DOCUMENTS for one in blocks(document) if one.language == "console"]
    texts = [command.text for console in consoles for command in commands(console)]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, text, re.DOTALL) for text in texts)] == []


def test_every_block_of_code_says_its_language() -> None:
    fences = [token for document in DOCUMENTS for token in MarkdownIt().parse(document.read_text(encoding="utf-8"))]
    assert {token.info for token in fences if token.type == "fence"} <= {*CODE, "text", "diff", "{toctree}"}
