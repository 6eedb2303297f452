"""One mutant after the other, in a copy of the repository, under the tests of its file.

pytest starts anew for each mutant, with PYTHONPATH on the copy, so that services which a test starts are mutated too.
A mutant is killed if a test fails. One that takes five times as long as the tests do without it counts as killed, and
is counted apart. Hypothesis draws the same examples each time and does not shrink what it finds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from tests.fixtures.artifacts import BUILT_STORE
from tests.mutation.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
LEAST_TIMEOUT_S = 30.0
TIMES_AS_LONG = 5.0
_PYTEST = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
# Only what the tests need: every plugin is imported anew for every mutant.
_PLUGINS = ["-p", "asyncio", "-p", "timeout", "-p", "hypothesispytest"]
_HYPOTHESIS = ["--hypothesis-profile=mutation", "--hypothesis-seed=0"]
_BUILD = "import pathlib, sys; from tests.fixtures import artifacts; artifacts.build_bundled(pathlib.Path(sys.argv[1]))"


class End(StrEnum):
    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"


class Tree:
    """A copy of the repository's files, in which they are mutated. Raises ValueError if tests fail without a mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout.decode()
        for name in listed.split("\0"):
            source = ROOT / name
            if name and (source.is_file() or source.is_symlink()):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        self._seconds: dict[tuple[str, ...], float] = {}
        subprocess.run(
            [sys.executable, "-c", _BUILD, str(folder / ".built")],
            cwd=folder,
            env=self._environment(),
            check=True,
        )

    def seconds_of(self, tests: Sequence[str]) -> float:
        """How long the tests take without a mutant."""
        if tuple(tests) not in self._seconds:
            started = time.monotonic()
            status, said = self._pytest(tests, 900, write_bytecode=True)
            if status != 0:
                raise ValueError(f"without any mutant, pytest {' '.join(tests)} ends with {status}:\n{said}")
            self._seconds[tuple(tests)] = time.monotonic() - started
            print(f"{self._seconds[tuple(tests)]:.1f} s without a mutant: {' '.join(tests)}", flush=True)
        return self._seconds[tuple(tests)]

    def try_out(self, mutant: Mutant, tests: Sequence[str]) -> End:
        timeout_s = max(LEAST_TIMEOUT_S, TIMES_AS_LONG * self.seconds_of(tests))
        path = self.folder / mutant.path
        original = path.read_bytes()
        path.write_text(mutant.code)
        # Byte code is known by the time and size of its source; two mutants may share both.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        try:
            status, said = self._pytest(tests, timeout_s, write_bytecode=False)
        finally:
            path.write_bytes(original)
        if status is None:
            return End.TIMEOUT
        if status == 5:
            raise ValueError(f"no tests in {' '.join(tests)}:\n{said}")
        return End.SURVIVED if status == 0 else End.KILLED

    def _environment(self) -> dict[str, str]:
        paths = [str(self.folder / part) for part in ("services", "trainer", ".")]
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return inherited | {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            BUILT_STORE: str(self.folder / ".built" / "artifacts"),
            # Tests on the real data take too long for each mutant; without it they are skipped.
            "BIOVERIFY_DATA_MIRROR": str(self.folder / ".no-data"),
        }

    def _pytest(self, tests: Sequence[str], timeout_s: float, *, write_bytecode: bool) -> tuple[int | None, str]:
        environment = self._environment() | ({} if write_bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *_PYTEST, *_PLUGINS, *_HYPOTHESIS, *tests],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            status: int | None = None
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(timeout_s)
            finally:
                # Also the services that a killed test left behind.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return status, output.read().decode(errors="replace")[-4000:]
