"""Who is admitted, for what, how often and until when: one key, and exactly one thing about it changed."""

from __future__ import annotations

import asyncio
import base64
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from bioverify.gateway.access import ANYONE, WORK_THREADS, Gateway, charger
from bioverify.gateway.api_keys import Key, Keyring, Scope, new_key, read_keys, write_keys
from bioverify.gateway.config import GatewayConfig
from bioverify.gateway.problems import ProblemError
from bioverify.settings import SettingsError

SCORE = (Scope.SCORE,)


def ring(folder: Path, *keys: Key) -> Keyring:
    write_keys(folder / "keys.yaml", keys)
    return Keyring(folder / "keys.yaml")


def refusal(keyring: Keyring, authorization: str | None, scope: Scope = Scope.SCORE) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        keyring.admit(authorization, scope)
    return caught.value


@pytest.mark.parametrize(
    ("own", "may"),
    [
        ((Scope.SCORE,), {Scope.SCORE}),
        ((Scope.TRAIN,), {Scope.TRAIN}),
        ((Scope.SCORE, Scope.TRAIN), {Scope.SCORE, Scope.TRAIN}),
        ((Scope.ADMIN,), set(Scope)),
    ],
)
def test_a_key_may_what_its_scopes_say_and_no_more(tmp_path: Path, own: tuple[Scope, ...], may: set[Scope]) -> None:
    text, key = new_key("a", own)
    keyring = ring(tmp_path, key)
    assert {scope for scope in Scope if key.may(scope)} == may
    for scope in Scope:
        if scope in may:
            assert keyring.admit(f"Bearer {text}", scope) == key
        else:
            refused = refusal(keyring, f"Bearer {text}", scope)
            assert (refused.status, refused.code) == (403, "scope_missing")
            assert refused.detail == f"this needs the scope {scope}; the key of a has: {', '.join(own)}"


@pytest.mark.parametrize(("hours", "is_good"), [(-24, False), (-0.001, False), (0.1, True), (24, True)])
def test_a_key_ends_at_its_time_and_not_at_the_end_of_that_day(tmp_path: Path, hours: float, is_good: bool) -> None:
    ends = datetime.now(UTC) + timedelta(hours=hours)
    text, key = new_key("a", SCORE, expires=ends)
    keyring = ring(tmp_path, key)
    if is_good:
        assert keyring.admit(f"Bearer {text}", Scope.SCORE).name == "a"
    else:
        refused = refusal(keyring, f"Bearer {text}")
        assert refused.status == 401
        assert refused.detail == f"the key of a expired on {ends:%Y-%m-%d}"


def test_an_expiry_in_another_time_zone_is_the_same_moment(tmp_path: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%S")
    text, key = new_key("a", SCORE, expires=f"{soon}+05:00")
    assert refusal(ring(tmp_path, key), f"Bearer {text}").status == 401
    text, key = new_key("a", SCORE, expires=f"{soon}-05:00")
    assert ring(tmp_path, key).admit(f"Bearer {text}", Scope.SCORE) == key
    with pytest.raises(ValueError, match="timezone"):
        new_key("a", SCORE, expires="2030-01-01T00:00:00")


def test_each_key_has_a_quota_and_a_rate_of_its_own(tmp_path: Path) -> None:
    made = {name: new_key(name, SCORE, items_per_day=10, requests_per_minute=2) for name in "ab"}
    keyring = ring(tmp_path, *(key for _, key in made.values()))
    for text, key in made.values():
        for _ in range(2):
            assert keyring.admit(f"Bearer {text}", Scope.SCORE) == key
        refused = refusal(keyring, f"Bearer {text}")
        assert (refused.status, refused.code) == (429, "quota_exceeded")
        assert refused.detail == f"the key of {key.name} has 2 requests a minute; 1 more is too many for now"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        keyring.charge(key, 9)
        with pytest.raises(ProblemError, match=f"the key of {key.name} has 10 items a day; 2 more is too many") as much:
            keyring.charge(key, 2)
        # A day and a minute at most: the window slides.
        assert 60 < int(much.value.headers["retry-after"]) <= 24 * 3600 + 60
        keyring.charge(key, 1)


def test_without_a_rate_or_a_quota_there_is_none(tmp_path: Path) -> None:
    text, key = new_key("a", SCORE)
    keyring = ring(tmp_path, key)
    for _ in range(200):
        keyring.admit(f"Bearer {text}", Scope.SCORE)
    keyring.charge(key, 10**9)


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        (None, "no key: send it as `Authorization: Bearer …`"),
        ("", "no key: send it as `Authorization: Bearer …`"),
        ("Bearer", "no key: send it as `Authorization: Bearer …`"),
        ("Bearer ", "no key: send it as `Authorization: Bearer …`"),
        ("{key}", "no key: send it as `Authorization: Bearer …`"),
        ("Token {key}", "no key: send it as `Authorization: Bearer …`"),
        ("Bearer {key}x", "the key is not known"),
        ("Bearer x{key}", "the key is not known"),
        ("Bearer {hash}", "the key is not known"),
        ("Basic {key}", "the credentials are not base64"),
        ("Basic {as_name}", "the key is not known"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(tmp_path: Path, authorization: str | None, said: str) -> None:
    text, key = new_key("a", (Scope.ADMIN,))
    as_name = base64.b64encode(f"{text}:".encode()).decode()
    filled = authorization and authorization.format(key=text, hash=key.sha256, as_name=as_name)
    # A text that base64 cannot be: the alphabet of keys has letters of its own.
    filled = filled and filled.replace("Basic bv_", "Basic bv_-")
    refused = refusal(ring(tmp_path, key), filled)
    assert (refused.status, refused.code, refused.detail) == (401, "unauthorised", said)
    assert refused.headers == {"www-authenticate": "Bearer"}


def test_a_key_is_taken_in_every_form_in_which_it_may_be_sent(tmp_path: Path) -> None:
    text, key = new_key("a", SCORE)
    keyring = ring(tmp_path, key)
    assert text.startswith("bv_")
    assert len(text) >= 43
    as_password = base64.b64encode(f"any:{text}".encode()).decode()
    for sent in (
        f"Bearer {text}",
        f"bearer {text}",
        f"BEARER  {text} ",
        f"Basic {as_password}",
        f"basic {as_password}",
    ):
        assert keyring.admit(sent, Scope.SCORE) == key


def test_the_file_is_read_again_when_it_changes_and_not_if_it_cannot_be(tmp_path: Path) -> None:
    old_text, old = new_key("old", SCORE)
    text, key = new_key("new", SCORE)
    keyring = ring(tmp_path, old)
    write_keys(tmp_path / "keys.yaml", (key,))
    assert keyring.admit(f"Bearer {text}", Scope.SCORE) == key
    assert refusal(keyring, f"Bearer {old_text}").detail == "the key is not known"
    (tmp_path / "keys.yaml").write_text("keys: [{")
    assert keyring.admit(f"Bearer {text}", Scope.SCORE) == key
    (tmp_path / "keys.yaml").unlink()
    assert keyring.admit(f"Bearer {text}", Scope.SCORE) == key
    write_keys(tmp_path / "keys.yaml", (old,))
    assert keyring.admit(f"Bearer {old_text}", Scope.SCORE) == old


def test_the_file_holds_hashes_is_its_owners_and_names_nobody_twice(tmp_path: Path) -> None:
    text, key = new_key("a", SCORE, items_per_day=5, expires="2030-01-01T00:00:00Z")
    _, other = new_key("b", (Scope.TRAIN, Scope.ADMIN), requests_per_minute=7)
    path = tmp_path / "keys.yaml"
    write_keys(path, (key, other))
    assert read_keys(path) == (key, other)
    assert text not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("keys:\n- name: a\n  sha256: ")
    with pytest.raises(ValidationError, match="frozen"):
        key.scopes = (Scope.ADMIN,)
    write_keys(path, (key, key, other))
    with pytest.raises(SettingsError, match=r"keys: two keys have the same name: a$"):
        read_keys(path)


def gateway(**config: Any) -> Gateway:
    made: Any = GatewayConfig(aggregator="127.0.0.1:9", **config)
    nobody: Any = None
    return Gateway(made, nobody, None, None, None)


async def test_work_is_done_in_other_threads_and_only_in_as_many_as_it_is_given() -> None:
    one = gateway()
    here, at_once, most, lock = threading.get_ident(), 0, 0, threading.Lock()
    full = threading.Barrier(WORK_THREADS, timeout=20)

    def work() -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        full.wait()
        with lock:
            at_once -= 1
        return threading.get_ident()

    done = await asyncio.gather(*(one.work(work) for _ in range(3 * WORK_THREADS)))
    assert here not in done
    assert (len(done), most) == (3 * WORK_THREADS, WORK_THREADS)


def test_a_place_is_given_back_after_an_answer_and_after_an_error() -> None:
    one = gateway(max_calls_in_flight=2)
    for _ in range(3):
        with one.call(), one.call():
            with pytest.raises(ProblemError, match="2 calls are under way already; try again") as caught, one.call():
                pass
            refused = caught.value
            assert (refused.status, refused.code, refused.headers) == (429, "overloaded", {"retry-after": "1"})
            assert one.calls == 2
        with pytest.raises(KeyError), one.call():
            raise KeyError
        assert one.calls == 0


def test_what_is_charged_is_logged_and_counted_against_the_callers_own_quota(tmp_path: Path) -> None:
    _, key = new_key("a", SCORE, items_per_day=10)
    open_one = gateway()
    guarded = gateway()
    guarded.keyring = ring(tmp_path, key)
    for served in (open_one, guarded):
        request: Any = SimpleNamespace(
            app=SimpleNamespace(state=SimpleNamespace(gateway=served)), state=SimpleNamespace()
        )
        charger(request, key)(10)
        assert request.state.items == 10
    with pytest.raises(ProblemError, match="1 more is too many"):
        charger(request, key)(1)
    assert ANYONE.name == "anyone"
    assert ANYONE.may(Scope.ADMIN)
