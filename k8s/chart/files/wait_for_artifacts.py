"""Ends when every artifact named is on the volume: python wait_for_artifacts.py NAME …

A pod that comes up before the job that builds them waits here, instead of failing and being put off for longer and
longer. The file `current` is written last, when an artifact is whole.
"""

import os
import sys
import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 2

store = Path(os.environ["BIOVERIFY_HOME"]) / "artifacts"
said: list[str] = []
while missing := [name for name in sys.argv[1:] if not (store / name / "current").is_file()]:
    if missing != said:
        print(f"waiting for {', '.join(missing)} in {store}", flush=True)
        said = missing
    time.sleep(SECONDS_BETWEEN_LOOKS)
