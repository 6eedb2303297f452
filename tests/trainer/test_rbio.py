"""rbio's checkpoints: fetched from a server that speaks S3's form, and opened, packed or not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
import torch
from typer.testing import CliRunner

from bioverify import recipes
from bioverify.settings import SettingsError
from bioverify_trainer.cli import app
from bioverify_trainer.model import checkpoints as rbio
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import load_preset

PER_PAGE = 3


@dataclass
class Bucket:
    """``cut``: bytes after which the next download of safetensors breaks off. ``sent``: bytes per key."""

    objects: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    asked: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    address: str = ""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    served = Bucket()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            served.asked.append(self.path)
            if "list-type" in query:
                self._send(200, self._listing(query))
                return
            content = served.objects.get(unquote(url.path).removeprefix("/"))
            if content is None:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self._send(206 if start else 200, content[start:], start, len(content))

        def _listing(self, query: dict[str, str]) -> bytes:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
            keys = sorted(key for key in served.objects if key.startswith(prefix))
            folders = {
                prefix + key.removeprefix(prefix).split("/")[0] + "/"
                for key in keys
                if delimiter and "/" in key.removeprefix(prefix)
            }
            items = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)]
            items += [
                f"<Contents><Key>{escape(key)}</Key><ETag>&quot;x&quot;</ETag>"
                f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<Size>{served.sizes.get(key, len(served.objects[key]))}</Size></Contents>"
                for key in keys
                if not any(key.startswith(folder) for folder in folders)
            ]
            first = int(query.get("continuation-token", 0))
            more = first + PER_PAGE < len(items)
            token = f"<NextContinuationToken>{first + PER_PAGE}</NextContinuationToken>" if more else ""
            body = "".join(items[first : first + PER_PAGE])
            return (
                '<?xml version="1.0" encoding="UTF-8"?>'
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>czi-rbio</Name>'
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}</ListBucketResult>"
            ).encode()

        def _send(self, status: int, content: bytes, start: int = 0, whole: int = 0) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"same"')
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            self.end_headers()
            if served.cut is not None and len(content) > served.cut:
                content, served.cut = content[: served.cut], None
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            return

    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def published(bucket, tiny_policy) -> Bucket:
    """The tiny policy as rbio1-GO+EXP, with things beside it that nobody wants."""
    for file in tiny_policy.iterdir():
        bucket.objects[f"rbio1-GO+EXP/{file.name}"] = file.read_bytes()
    bucket.objects |= {
        "rbio1-GO+EXP/": b"",
        "rbio1-GO+EXP/training_args.bin": b"a pickle",
        "rbio1-GO+EXP/global_step9/state.safetensors": b"of the optimiser",
        "rbio1-EXP/config.json": b"{}",
        "rbio1-EXP/pytorch_model.bin": b"a pickle",
    }
    return bucket


def test_the_table_has_the_recipes_names():
    assert set(rbio.CHECKPOINTS) == {name for name in recipes.names() if name.startswith("rbio1-")}
    assert len(rbio.CHECKPOINTS) == 11


def test_a_checkpoint_is_fetched_in_spite_of_a_cut_and_only_once(published, tiny_policy, tmp_path):
    published.cut = 5000
    folder = rbio.fetch("rbio1-go+exp", tmp_path, bucket=published.address)
    assert {file.name for file in folder.iterdir()} == {file.name for file in tiny_policy.iterdir()}
    for file in folder.iterdir():
        assert file.read_bytes() == (tiny_policy / file.name).read_bytes()
    assert not any("training_args" in path or "global_step" in path for path in published.asked)
    # The name's plus is no space.
    assert any("rbio1-GO%2BEXP/" in path for path in published.asked)
    n_asked = len(published.asked)
    assert rbio.fetch("rbio1-go+exp", tmp_path, bucket=published.address) == folder
    assert len(published.asked) == n_asked


def test_a_file_of_another_size_than_the_bucket_says_is_refused_and_what_is_whole_is_kept(published, tmp_path):
    published.sizes["rbio1-GO+EXP/model.safetensors"] = 17
    with pytest.raises(rbio.CheckpointError, match="expected 17"):
        rbio.fetch("rbio1-go+exp", tmp_path, bucket=published.address)
    assert not (tmp_path / "rbio1-go+exp").exists()
    del published.sizes["rbio1-GO+EXP/model.safetensors"]
    published.asked.clear()
    rbio.fetch("rbio1-go+exp", tmp_path, bucket=published.address)
    assert not any(path.endswith("/config.json") for path in published.asked)


@pytest.mark.parametrize(
    ("name", "message"),
    [("rbio1-exp", "lacks model.safetensors"), ("rbio1-tf", "no such folder, only: rbio1-EXP, rbio1-GO[+]EXP")],
)
def test_what_is_not_there_is_said(published, tmp_path, name, message):
    with pytest.raises(rbio.CheckpointError, match=message):
        rbio.fetch(name, tmp_path, bucket=published.address)


def test_a_bucket_that_is_not_reached_is_said(tmp_path):
    with pytest.raises(rbio.CheckpointError, match="could not be fetched"):
        rbio.fetch("rbio1-exp", tmp_path, bucket="http://127.0.0.1:9")


def test_a_published_checkpoint_is_asked_by_its_name(published, tmp_path):
    environment = {"BIOVERIFY_HOME": str(tmp_path), "BIOVERIFY_RBIO_BUCKET": published.address}
    command = ["ask", "Why?", "--model", "rbio1-go+exp", "--max-tokens", "3"]
    asked = CliRunner().invoke(app, command, env=environment)
    assert asked.exit_code == 0, asked.output
    assert (tmp_path / "models" / "rbio1-go+exp" / "model.safetensors").is_file()


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_weights_answer_nearly_as_the_whole_ones(tiny_policy, bits):
    pytest.importorskip("bitsandbytes")
    whole = open_policy(str(tiny_policy), dtype=torch.float32)
    packed = open_policy(str(tiny_policy), dtype=torch.float32, bits=bits)
    assert getattr(packed.model, f"is_loaded_in_{bits}bit")
    kinds = {type(module).__name__ for module in packed.model.modules()}
    assert {8: "Linear8bitLt", 4: "Linear4bit"}[bits] in kinds
    ids = whole.tokenizer("Is a knockdown", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected, found = whole.model(ids).logits[0, -1], packed.model(ids).logits[0, -1]
    assert torch.nn.functional.cosine_similarity(expected, found.float(), dim=0) > {8: 0.99, 4: 0.9}[bits]
    assert not torch.equal(expected, found.float())


def test_packed_weights_are_trained_by_adapters_only():
    assert load_preset("one-gpu", ["policy.bits=4"]).policy.bits == 4
    with pytest.raises(SettingsError, match=r"policy\.bits"):
        load_preset("one-gpu", ["policy.bits=4", "policy.lora=null"])
    with pytest.raises(SettingsError, match=r"policy\.bits"):
        load_preset("one-gpu", ["policy.bits=3"])
