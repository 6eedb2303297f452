"""API keys: who calls, what they may, how much of it.

The file holds hashes only, so it tells nobody a key. A key is 256 random bits, so that a plain SHA-256 of it cannot be
searched; a slow hash would only slow the callers. The file is read again when it changes: keys are given, taken and
replaced without a restart. If a changed file cannot be read, the previous keys stay in force, and the log says so.

Rates and quotas are counted in this process (library `limits`), so several gateways allow as many times as much.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import structlog
import yaml
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bioverify.files import Stamp, replace_file, stamp_of
from bioverify.gateway.problems import ProblemError
from bioverify.settings import SettingsError, read_settings

PREFIX = "bv_"
_log = structlog.get_logger("bioverify.gateway")


class Scope(StrEnum):
    SCORE = "score"
    """Score, see verifiers and recipes, run jobs of one's own."""
    TRAIN = "train"
    """See training runs, start and stop them."""
    ADMIN = "admin"
    """Everything, other people's jobs and the metrics among it."""


class Key(BaseModel):
    """One key. ``sha256``: of the key's text, in hex. Without a rate or a quota there is none."""

    # A key that stands where its hash belongs must not reach a message or a log.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    expires: AwareDatetime | None = None
    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    items_per_day: Annotated[int | None, Field(ge=1)] = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    keys: tuple[Key, ...] = ()


def new_key(name: str, scopes: tuple[Scope, ...], **limits: object) -> tuple[str, Key]:
    """A fresh key's text, to be shown once, and what is kept of it."""
    text = PREFIX + secrets.token_urlsafe(32)
    return text, Key.model_validate({"name": name, "sha256": _hash(text), "scopes": scopes, **limits})


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file. Raises SettingsError."""
    keys = read_settings(_KeysFile, path).keys
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(path, "keys", f"two keys have the same name: {', '.join(twice)}")
    return keys


def write_keys(path: Path, keys: tuple[Key, ...]) -> None:
    """Replace the file, for its owner's eyes only."""
    entries = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    replace_file(path, yaml.safe_dump({"keys": entries}, sort_keys=False), private=True)


class Keyring:
    """The keys in force. Raises SettingsError if the file cannot be used at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = self._stamp()
        self._by_hash = {key.sha256: key for key in read_keys(path)}
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def admit(self, authorization: str | None, scope: Scope) -> Key:
        """The caller's key. Raises ProblemError: 401 without a good one, 403 without the scope, 429 beyond its rate."""
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            text = _password(text)
        elif scheme.lower() != "bearer" or not text:
            raise _unauthorised("no key: send it as `Authorization: Bearer …`")
        self._reload()
        key = self._by_hash.get(_hash(text.strip()))
        if key is None:
            raise _unauthorised("the key is not known")
        if key.expires is not None and datetime.now(UTC) >= key.expires:
            raise _unauthorised(f"the key of {key.name} expired on {key.expires:%Y-%m-%d}")
        if not key.may(scope):
            has = ", ".join(key.scopes)
            raise ProblemError(403, "scope_missing", f"this needs the scope {scope}; the key of {key.name} has: {has}")
        if key.requests_per_minute:
            self._spend(key, RateLimitItemPerMinute(key.requests_per_minute), 1, "requests a minute")
        return key

    def charge(self, key: Key, items: int) -> None:
        """Count items against the key's daily quota. Raises ProblemError 429 if they are too many."""
        if key.items_per_day:
            self._spend(key, RateLimitItemPerDay(key.items_per_day), items, "items a day")

    def _spend(self, key: Key, limit: RateLimitItem, cost: int, unit: str) -> None:
        if not self._limiter.hit(limit, key.name, cost=cost):
            reset_s = max(1, int(self._limiter.get_window_stats(limit, key.name).reset_time - _now()))
            detail = f"the key of {key.name} has {limit.amount:,} {unit}; {cost:,} more is too many for now"
            raise ProblemError(429, "quota_exceeded", detail, headers={"retry-after": str(reset_s)})

    def _stamp(self) -> Stamp | None:
        try:
            return stamp_of(self._path)
        except OSError:
            return None

    def _reload(self) -> None:
        stamp = self._stamp()
        if stamp == self._read_at:
            return
        self._read_at = stamp
        try:
            self._by_hash = {key.sha256: key for key in read_keys(self._path)}
        except SettingsError as error:
            _log.error("could not read the keys file; still using the previous keys", error=str(error))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _password(credentials: str) -> str:
    """Of "name:password" in base64: the key of a caller that can only be given an address, https://any:KEY@host/…"""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError as error:
        raise _unauthorised("the credentials are not base64") from error


def _unauthorised(detail: str) -> ProblemError:
    return ProblemError(401, "unauthorised", detail, headers={"www-authenticate": "Bearer"})
