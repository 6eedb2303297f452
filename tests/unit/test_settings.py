"""Settings files that somebody got wrong: every door says which file, which key, and why, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from bioverify import recipes
from bioverify.cli.build_settings import read_build_settings
from bioverify.client.json_form import ItemJson
from bioverify.gateway.api_keys import read_keys
from bioverify.gateway.config import GatewayConfig, make_config
from bioverify.gateway.scoring import ScoreRequest
from bioverify.settings import SettingsError, parse_yaml, problems, read_settings
from bioverify_trainer.preset import load_preset
from bioverify_trainer.service.cluster import ClusterSettings

# (the door, a wrong key, the key that was meant)
DOORS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "gateway": (lambda file: make_config(file, {}), "listn: a:1", "listen"),
    "keys": (read_keys, "kyes: []", "keys"),
    "recipe": (recipes.read, "name: x\nsorces: []\nterms: []", "sources"),
    "preset": (lambda file: load_preset(str(file)), "name: x\npolcy: {}", "policy"),
    "build settings": (read_build_settings, "go_rogue: {}", "go_rouge"),
    "cluster": (lambda file: read_settings(ClusterSettings, file), "namespace: x\nruntim: y", "runtime"),
}
UNREADABLE = {
    "UTF-16": ("name: x\n".encode("utf-16"), r"not text in UTF-8 \(byte 0xff at offset 0\)\. Save it as UTF-8"),
    "UTF-16 without a mark": (
        "name: x\n".encode("utf-16-le"),
        r"not text in UTF-8 \(it has zero bytes.*Save it as UTF-8",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", r"not text in UTF-8 \(byte 0x89 at offset 0\)"),
    "Latin-1": ("name: Zürich\n".encode("latin-1"), r"not text in UTF-8 \(byte 0xfc at offset 7\)"),
    "no end": (b"name: [x\n", r"not YAML \(line 2, column 1: "),
    "a key twice": (b"name: x\nname: y\n", r"not YAML \(line 2, column 1: the key name stands twice\)"),
    "no such day": (b"name: 2026-02-31\n", r"not YAML \(day is out of range for month\)"),
    "too deep": (b"[" * 5000, r"not YAML \(maximum recursion depth"),
    "a control character": (b"name: \x07\n", r"not YAML \(unacceptable character"),
    "a list": (b"- name\n", r"settings are `key: value` lines, not a list"),
    "two documents": (b"name: x\n---\nname: y\n", r"not YAML \(line 2, column 1: but found another document\)"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_wrong_key_is_refused_by_file_and_name_with_the_one_that_was_meant(tmp_path: Path, door: str) -> None:
    read, text, meant = DOORS[door]
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=rf"mine\.yaml: .*there is no such key; did you mean {meant}\?") as refused:
        read(tmp_path / "mine.yaml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_is_no_settings_is_refused_in_one_sentence(tmp_path: Path, door: str, kind: str) -> None:
    raw, why = UNREADABLE[kind]
    (tmp_path / "mine.yaml").write_bytes(raw)
    with pytest.raises(SettingsError, match=rf"mine\.yaml: {why}") as refused:
        DOORS[door][0](tmp_path / "mine.yaml")
    assert "\n" not in str(refused.value)
    assert refused.value.key == ""


@pytest.mark.parametrize("door", DOORS)
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, door: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"folder\.yaml: Is a directory"):
        DOORS[door][0](tmp_path / "folder.yaml")
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file or directory"):
        DOORS[door][0](tmp_path / "absent.yaml")


def test_a_byte_order_mark_and_an_empty_file_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xef\xbb\xbfmax_items: 5\n")
    assert make_config(file, {}).max_items == 5
    file.write_bytes(b"# nothing yet\n")
    assert make_config(file, {}) == GatewayConfig()


def test_everything_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("max_items: 0\nidentity: {certificate: a, key: b}\nbody_timeout_s: soon\n")
    with pytest.raises(SettingsError) as refused:
        make_config(tmp_path / "mine.yaml", {})
    assert str(refused.value).endswith(
        "mine.yaml: identity.ca: Field required; "
        "max_items: Input should be greater than or equal to 1, not 0; "
        "body_timeout_s: Input should be a valid number, unable to parse string as a number, not 'soon'"
    )
    assert refused.value.key == "identity.ca"


def test_a_key_that_stands_where_its_hash_belongs_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("keys: [{name: alice, sha256: bv_the-key-itself, scopes: [score]}]\n")
    with pytest.raises(SettingsError, match=r"keys\.yaml: keys\[0\]\.sha256: ") as refused:
        read_keys(tmp_path / "keys.yaml")
    assert "itself" not in str(refused.value)


def test_a_key_that_is_merged_in_may_be_overwritten() -> None:
    assert parse_yaml("base: &b {a: 1}\nown: {<<: *b, a: 2}\n", "x")["own"] == {"a": 2}


def test_a_change_that_is_no_yaml_is_refused_by_the_option() -> None:
    with pytest.raises(SettingsError, match=r"--set grpo\.max_steps=\[1: not YAML \(line 1, column 3"):
        load_preset("cpu", ["grpo.max_steps=[1"])


def test_a_shipped_preset_is_called_by_its_name_and_not_by_its_place_on_this_machine() -> None:
    with pytest.raises(SettingsError, match=r"^cpu-smollm2-135m\.yaml: grpo\.max_steps: "):
        load_preset("cpu", ["grpo.max_steps=0"])


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int


class _Outer(BaseModel):
    one_of: int | list[_Inner] | None = None
    by_name: dict[str, _Inner] = {}
    rows: tuple[_Inner, ...] = ()
    maybe: _Inner | None = None


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"one_of": [{"number": "x"}]}, "one_of[0].number"),
        ({"by_name": {"K562": {"number": "x"}}}, "by_name.K562.number"),
        ({"by_name": {"str": {"number": "x"}}}, "by_name.str.number"),
        ({"by_name": {"a[b]": {"number": "x"}}}, "by_name.a[b].number"),
        ({"rows": [{"number": 1}, {"nmber": 1}]}, "rows[1].nmber"),
        ({"maybe": {"number": None}}, "maybe.number"),
    ],
)
def test_a_place_is_told_in_the_words_of_the_file_and_not_of_the_union_that_was_tried(content, place) -> None:
    with pytest.raises(ValidationError) as found:
        _Outer.model_validate(content)
    assert place in [where for where, _ in problems(found.value, _Outer)]


def test_an_item_is_named_the_same_way_wherever_it_comes_from() -> None:
    wrong = {"completion": "x", "prompt": [{"role": "narrator", "content": "y"}]}
    with pytest.raises(ValidationError) as in_a_file:
        ItemJson.model_validate(wrong)
    with pytest.raises(ValidationError) as over_http:
        ScoreRequest.model_validate({"items": [wrong]})
    line = [place for place, _ in problems(in_a_file.value, ItemJson)]
    request = [place for place, _ in problems(over_http.value, ScoreRequest)]
    assert line == ["prompt[0].role"]
    assert request == [f"items[0].{place}" for place in line]
