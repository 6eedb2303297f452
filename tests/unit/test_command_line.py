"""What the command line says of itself: help, examples, completion, and mistakes that are told before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from bioverify import recipes
from bioverify.cli import app
from bioverify.cli.services import ARTIFACTS, VERIFIERS
from bioverify.cli.training import COMMANDS
from bioverify_trainer.cli import app as trainer
from bioverify_trainer.preset import ALIASES, preset_names

NARROW = {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
GATEWAY = "http://127.0.0.1:15059"


def said(*arguments: str, status: int = 0, **environment: str) -> str:
    """What `bioverify …` prints, on 80 columns."""
    done = CliRunner().invoke(app, list(arguments), prog_name="bioverify", env=NARROW | environment)
    assert done.exit_code == status, done.output
    return done.output


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, those of the trainer among them."""

    def below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(command, (*words, name))
            elif words or name not in COMMANDS:
                yield (*words, name), command

    yield from below(get_command(app), ())
    for name, command in get_command(trainer).commands.items():  # type: ignore[attr-defined]
        yield from below(command, (name,)) if hasattr(command, "commands") else [((name,), command)]


ALL = list(commands())


def test_the_list_of_commands_has_every_command_and_cuts_no_sentence() -> None:
    listed = said("-h")
    for words, _ in ALL:
        assert f"\n  {words[0]} " in listed
    for group in ("", "data", "runs", "keys", "verifier"):
        assert "..." not in said(*filter(None, [group]), "-h").replace("[ARGS]...", "")


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_help_names_the_command_as_it_is_typed_and_ends_with_an_example_that_can_be(
    words: tuple[str, ...], command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = " ".join(("bioverify", *words))
    shown = said(*words, "-h")
    assert shown.startswith(f"Usage: {typed}")
    assert "<bool>" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    _, marked, example = shown.partition("\n  Example: ")
    assert marked, f"{typed} has no example"
    example = " ".join(example.partition("\n\n")[0].split())
    assert example.startswith(typed)
    # What the examples name.
    monkeypatch.chdir(tmp_path)
    for file in ("completions.jsonl", "notes.txt"):
        (tmp_path / file).touch()
    (tmp_path / "gene_age").mkdir()
    command.make_context(typed, shlex.split(example)[1 + len(words) :])


def test_words_in_square_brackets_are_part_of_the_help() -> None:
    assert "needs the extra [gateway]" in " ".join(said("up", "-h").split())
    assert "Needs the extra [gateway]." in " ".join(said("gateway", "-h").split())


def test_a_mistake_is_answered_with_the_usage_as_it_is_typed() -> None:
    for words in (("train",), ("runs", "watch"), ("runs", "list"), ("eval",)):
        answered = said(*words, "--nonsense", status=2)
        assert answered.startswith(f"Usage: bioverify {' '.join(words)} ")
        assert "No such option: --nonsense" in answered


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("train ", recipes.names()),
        ("train rbio1-go", [name for name in recipes.names() if name.startswith("rbio1-go")]),
        ("score x --recipe rbio1-tf", [name for name in recipes.names() if name.startswith("rbio1-tf")]),
        ("up --recipe cl", ["claims+exp", "claims+mlp"]),
        ("train all --preset ", [*preset_names(), *ALIASES]),
        ("eval --model smollm2 --preset c", ["cpu-smollm2-135m", "cpu"]),
        ("runs start first ", recipes.names()),
        ("data build ", ARTIFACTS),
        ("data verify e", ["experimental"]),
        ("serve ", VERIFIERS),
        ("up --only ana", ["analogy"]),
        ("report ", ["runs/one", "runs/two"]),
        ("runs compare runs/t", ["runs/two"]),
        ("export elsewhere/", ["elsewhere/three"]),
        ("tr", ["try", "train"]),
    ],
)
def test_a_shell_completes_what_there_is(
    typed: str, completed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("runs/one", "runs/two", "elsewhere/three"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "run.json").touch()
    (tmp_path / "artifacts/experimental").mkdir(parents=True)
    (tmp_path / "artifacts/experimental/current").touch()
    monkeypatch.chdir(tmp_path)
    asked = {
        "_BIOVERIFY_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_ARGS": f"bioverify {typed}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "BIOVERIFY_HOME": str(tmp_path),
    }
    answered = said(**asked)
    assert [line.split("\t")[0] for line in answered.splitlines()] == list(completed)


@pytest.mark.parametrize(
    "words",
    [
        ("score", "completions.jsonl", "--target", GATEWAY),
        ("rescore", "completions.jsonl", "--target", f"{GATEWAY}/"),
        ("recipes", "--target", GATEWAY),
        ("verifiers", "--target", GATEWAY),
        ("healthcheck", GATEWAY),
        ("verifier", "test", GATEWAY),
        ("gateway", "--target", GATEWAY),
        ("aggregate", "--verifier", f"format={GATEWAY}"),
        ("train", "all", "--target", GATEWAY),
        ("eval", "--model", "baseline:mlp", "--target", "HTTP://127.0.0.1:15059/v1"),
        ("ask", "Why?", "--target", GATEWAY),
        ("runs", "list", "--service", GATEWAY),
        ("runs", "serve", "--target", GATEWAY),
        ("runs", "resume", "runs/first", "--target", GATEWAY),
    ],
)
def test_a_url_in_the_place_of_a_target_is_answered_with_the_address_and_with_where_http_is(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "completions.jsonl").touch()
    done = CliRunner().invoke(app, list(words), prog_name="bioverify", env={"BIOVERIFY_STATE": str(tmp_path)})
    assert done.exit_code in {1, 2}, done.output
    answered = " ".join(done.stderr.split())
    assert "is a URL; gRPC wants host:port, for instance 127.0.0.1:15050." in answered
    assert f"HTTP is at {GATEWAY}, docs/http.md" in answered
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "format", "--listen", "http://127.0.0.1:1"),
        ("aggregate", "--verifier", "format=127.0.0.1:1", "--listen", "grpc://127.0.0.1:1"),
    ],
)
def test_a_url_to_listen_on_is_answered_with_the_address(words: tuple[str, ...]) -> None:
    assert "listen: " in (answered := said(*words, status=1))
    assert "gRPC wants host:port, for instance 127.0.0.1:1." in answered


@pytest.mark.parametrize(
    "words",
    [
        ("score", "completions.jsonl", "--output"),
        ("rescore", "completions.jsonl", "--output"),
        ("keys", "new", "alice", "--file"),
        ("report", "runs/first", "--output"),
        ("generate",),
        ("eval", "--model", "smollm2", "--json"),
    ],
)
def test_a_file_in_a_folder_that_is_missing_is_a_sentence_with_the_command_that_mends_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "completions.jsonl").touch()
    done = CliRunner().invoke(app, [*words, "nowhere/file"], prog_name="bioverify")
    assert done.exit_code in {1, 2}, done.output
    assert "nowhere/file: there is no folder nowhere. Run: mkdir -p nowhere" in " ".join(done.stderr.split())
