"""Settings: a YAML file into a strict model, and what does not fit as one sentence.

Every file that a person writes for us is read here: the gateway's settings and keys, recipes, presets, build settings,
a cluster's. `SettingsError` names the file, the key and what is wrong with it. What pydantic finds wrong is put into
words once, in `problems`, which also serves items: lines of a file, rows of a frame, requests over HTTP and gRPC.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from bioverify.errors import BioverifyError

AnyModel = TypeVar("AnyModel", bound=BaseModel)
# A longer value is not repeated in a message.
_LONGEST_SHOWN = 60
_NO_SUCH_KEY = {"extra_forbidden", "unexpected_keyword_argument"}


class SettingsError(BioverifyError, ValueError):
    """Settings that cannot be used: in which file, at which key (empty: the file as a whole), and why."""

    def __init__(self, file: str | Path, key: str, why: str) -> None:
        super().__init__(_phrase((str(file), key, why)))
        self.file = str(file)
        self.key = key
        self.why = why


def read_settings(model: type[AnyModel], file: Path | Traversable) -> AnyModel:
    """The settings in a file. An empty one holds the defaults. Raises SettingsError."""
    return checked(model, read_mapping(file), file)


def read_mapping(file: Path | Traversable) -> dict[str, Any]:
    """The keys of a YAML file, not yet checked. Raises SettingsError."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(str(file), "", error.strerror or str(error)) from error
    content = parse_yaml(raw, file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(str(file), "", f"settings are `key: value` lines, not a {type(content).__name__}")
    return content


def parse_yaml(raw: bytes | str, file: object) -> Any:
    """The value of a YAML text; ``file``: where it stands, for the message. Raises SettingsError."""
    if isinstance(raw, bytes):
        raw = _decoded(raw, file)
    try:
        return yaml.load(raw, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError(str(file), "", f"not YAML ({_yaml_problem(error)})") from error
    except (ValueError, RecursionError) as error:
        # A date that no calendar has, brackets beyond all depth.
        raise SettingsError(str(file), "", f"not YAML ({error})") from error


def checked(model: type[AnyModel], content: Any, file: object) -> AnyModel:
    """The content as a model; ``file``: where it stands. Raises SettingsError with everything that does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        (key, why), *others = [(place, why + _shown(found, owner)) for place, why, found, owner in _found(error, model)]
        raise SettingsError(str(file), key, "; ".join([why, *map(_phrase, others)])) from error


def problems(error: ValidationError, model: Any) -> list[tuple[str, str]]:
    """Each place that does not fit, as `items[3].prompt`, and why; an empty place is the whole.

    ``model``: what was validated; its fields tell a key from the member of a union that pydantic names beside it.
    """
    return [(place, why) for place, why, _, _ in _found(error, model)]


def first_problem(error: ValidationError, model: Any, whole: str) -> str:
    """The first place that does not fit and why, in one phrase. ``whole``: what the whole is called."""
    place, why = problems(error, model)[0]
    return _phrase((place or whole, why))


def problem(found: Any, model: Any = None) -> tuple[str, str]:
    """One of pydantic's findings: the place, and why it does not fit."""
    place, owner = _followed(found["loc"], model)
    return place, _why(found, owner)


def _found(error: ValidationError, model: Any) -> list[tuple[str, str, Any, Any]]:
    """Place, why, pydantic's finding, and the model that the place's last key belongs to."""
    everything: list[tuple[str, str, Any, Any]] = []
    for found in error.errors(include_url=False):
        place, owner = _followed(found["loc"], model)
        # A validator that reads a whole says where in it.
        place += found.get("ctx", {}).get("within", "")
        # "No text" is said of a list that could have been one, right before what is wrong inside of the list.
        if everything and everything[-1][0] and place.startswith((f"{everything[-1][0]}.", f"{everything[-1][0]}[")):
            everything.pop()
        everything.append((place, _why(found, owner), found, owner))
    return everything


def _why(found: Any, owner: Any) -> str:
    if found["type"] in _NO_SUCH_KEY:
        near = difflib.get_close_matches(str(found["loc"][-1]), _fields(owner) or (), n=1)
        return "there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    why: str = found["msg"]
    return why.removeprefix("Value error, ")


def _phrase(parts: Sequence[str]) -> str:
    return ": ".join(part for part in parts if part)


def _followed(location: Sequence[str | int], model: Any) -> tuple[str, Any]:
    """The place in the words of whoever wrote it, and the model that its last key belongs to."""
    place, owner, kind = "", None, model
    for part in location:
        members = _members(kind)
        if len(members) > 1:
            kind = next((member for member in members if getattr(member, "__name__", "?") in str(part)), None)
            continue
        if part == "[key]":
            continue
        owner = members[0]
        kind = _inside(owner, part)
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place, owner


def _members(kind: Any) -> list[Any]:
    """What a value may be, None left out: more than one for a union."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in {Union, types.UnionType}:
        return [kind]
    return [member for each in get_args(kind) if each is not types.NoneType for member in _members(each)]


def _inside(kind: Any, part: str | int) -> Any:
    """What stands under a key or position of this kind; None if nothing is known of it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields[part].annotation if part in kind.model_fields else None
    inner = [each for each in get_args(kind) if each is not Ellipsis]
    return inner[-1] if inner else None


def _fields(kind: Any) -> Any:
    return getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", None)


def _shown(found: Any, owner: Any) -> str:
    """The value that does not fit, unless it is long, or its model keeps it to itself."""
    is_plain = isinstance(found["input"], str | int | float) and len(repr(found["input"])) <= _LONGEST_SHOWN
    hides = getattr(owner, "model_config", {}).get("hide_input_in_errors", False)
    return f", not {found['input']!r}" if is_plain and not hides and found["type"] not in _NO_SUCH_KEY else ""


def _decoded(raw: bytes, file: object) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"not text in UTF-8 (byte {raw[error.start]:#04x} at offset {error.start}). Save it as UTF-8"
        raise SettingsError(str(file), "", why) from error
    if "\0" in text:
        raise SettingsError(str(file), "", "not text in UTF-8 (it has zero bytes, as UTF-16 has). Save it as UTF-8")
    return text


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """Of two equal keys YAML's own loader keeps the last and drops the first."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node
