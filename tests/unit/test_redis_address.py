"""What may be said of where Redis is, and that nothing of a wrong address is repeated anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import parse_url

from bioverify.aggregator.config import AggregatorConfig
from bioverify.health import cache_answers
from bioverify.settings import SettingsError, checked
from bioverify.transport.redis_address import RedisAddressError, read_address

SECRET = "SECRETpart"
# A password as it was generated, put into a URL as it stands.
UNREADABLE = [
    f"redis://:{SECRET}/rest@redis:6379/0",
    f"redis://:{SECRET}?rest@redis:6379/0",
    f"redis://:{SECRET}#rest@redis:6379/0",
    f"redis://:{SECRET}@rest@redis:6379/0",
    f"redis://user:{SECRET}/rest@redis:6379/0",
    f"redis://:{SECRET} rest@redis:6379/0",
    f"rediss+cluster://:{SECRET}/rest@redis:6379",
    f"redis+sentinel://:{SECRET}/rest@a:26379,b:26379/service",
    f"redis+sentinel://:{SECRET}@a:26379,b:26379",
    f"redis+sentinel://:{SECRET}@a:26379/service?db=1",
    f"redis://:{SECRET}@redis:6379/0?timeuot=3",
    f"redis://redis:6379/0?password={SECRET}",
    f"redis://redis:6379/0?db={SECRET}",
    f"redis://:{SECRET}@redis:66379/0",
    f"redis://:{SECRET}@redis:port/0",
    f"redis://:{SECRET}@/0",
    f"redis://:{SECRET}@redis:6379/name",
    f"memcached://:{SECRET}@redis:6379",
    f"redis-sentinel://:{SECRET}@redis:6379",
    f"{SECRET}@redis:6379",
    f"unix://:{SECRET}@relative",
    f"redis://:123/{SECRET}@redis:6379",
    # Digits are a port to a reader of URLs, and the rest a database.
    f"redis://u:123/{SECRET}@redis",
    f"redis://u:123?db={SECRET}@redis",
    f"rediss://redis?ssl_cert_reqs={SECRET}",
    f"rediss+cluster://redis?ssl_cert_reqs={SECRET}",
    "",
]


@pytest.mark.parametrize("url", UNREADABLE)
def test_what_cannot_be_read_is_refused_in_one_sentence_without_any_part_of_it(url: str) -> None:
    with pytest.raises(RedisAddressError) as caught:
        read_address(url)
    for said in (str(caught.value), *(str(each) for each in (caught.value.__cause__,) if each)):
        assert SECRET not in said
        assert "rest" not in said
        assert "\n" not in said
    with pytest.raises(SettingsError) as refused:
        checked(AggregatorConfig, {"listen": "x", "verifiers": {"a": "b"}, "redis_url": url}, "")
    assert str(refused.value).startswith("redis_url: the address of Redis")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("command", [("aggregate", "--verifier=format=127.0.0.1:9"), ("up",)])
def test_a_command_ends_with_the_sentence_and_no_traceback(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bioverify.cli", *command, f"--redis-url=redis://:{SECRET}/rest@redis:6379/0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode not in (0, None)
    said = done.stdout + done.stderr
    assert "percent-encoded" in re.sub(r"\s+", " ", said)
    assert "Traceback" not in said
    assert SECRET not in said


def test_the_health_of_a_cache_asks_for_a_readable_address_too() -> None:
    with pytest.raises(RedisAddressError):
        cache_answers(f"redis://:{SECRET}/rest@redis:6379/0")
    for url in ("redis://127.0.0.1:9", "redis+cluster://127.0.0.1:9", "redis+sentinel://127.0.0.1:9/service"):
        assert cache_answers(url, timeout_s=0.2) is False


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()), st.sampled_from(["", "user"]))
def test_any_password_that_is_percent_encoded_is_read_as_it_was(password: str, user: str) -> None:
    for url in (
        f"redis://{user}:{quote(password, safe='')}@[::1]:7000/3",
        f"redis+sentinel://{user}:{quote(password, safe='')}@a:1,[::1]:2/service/3",
    ):
        address = read_address(url)
        assert (address.username, address.password) == (user or None, password)
        assert password not in repr(address) or len(password) < 8


@given(st.text("aA1/?#@:%[], .-", min_size=1, max_size=12))
def test_what_redis_py_makes_of_an_address_that_is_taken_is_what_it_says(password: str) -> None:
    """Put in raw: either it is refused, or nothing of the password has become host, port or database."""
    try:
        address = read_address(f"redis://:{password}@redis:6379/1")
    except RedisAddressError:
        return
    found = parse_url(address.url)
    assert (found["host"], found["port"], found["db"]) == ("redis", 6379, 1)
    assert "password" not in found


@pytest.mark.parametrize(
    ("url", "said"),
    [
        # Each of them was taken, and every lookup was a miss for good, or the aggregator ended with a traceback.
        ("redis+cluster://redis:6379/1", "a cluster has one, 0"),
        ("redis+cluster://redis:6379?db=2", "a cluster has one, 0"),
        ("redis://redis?ssl_ca_certs=/etc/ca.crt", "in an address without it"),
        ("redis+cluster://redis?ssl_check_hostname=false", "in an address without it"),
        ("unix:///run/valkey.sock?ssl_ca_certs=/etc/ca.crt", "in an address without it"),
        ("redis://redis?protocol=9", "a value that it cannot have"),
        ("rediss://redis?ssl_min_version=newest", "a value that it cannot have"),
        ("redis://redis?sentinel_auth=true", r"for redis\+sentinel:// alone"),
        ("redis+cluster://redis?sentinel_auth=false", r"for redis\+sentinel:// alone"),
    ],
)
def test_an_address_that_redis_py_would_stumble_over_later_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(RedisAddressError, match=said):
        read_address(url)


@pytest.mark.parametrize(
    ("url", "hosts", "kind"),
    [
        ("redis://redis", (("redis", 6379),), "server"),
        ("redis://redis:6379/0\n", (("redis", 6379),), "server"),
        ("redis://scores@redis", (("redis", 6379),), "server"),
        ("rediss://cache_1.example.org:6380/", (("cache_1.example.org", 6380),), "server"),
        ("redis://[fd00::1]:6380/2", (("fd00::1", 6380),), "server"),
        ("redis+cluster://10.0.0.1", (("10.0.0.1", 6379),), "cluster"),
        (
            "rediss+cluster://10.0.0.1/0?ssl_ca_certs=/etc/ca.crt&ssl_cert_reqs=required",
            (("10.0.0.1", 6379),),
            "cluster",
        ),
        ("redis+sentinel://a,b:5,[::1]/service", (("a", 26379), ("b", 5), ("::1", 26379)), "sentinel"),
        ("unix:///run/valkey.sock?db=2", (), "socket"),
        ("rediss://redis:6379/0?ssl_cert_reqs=none", (("redis", 6379),), "server"),
    ],
)
def test_addresses_that_are_taken(url: str, hosts: tuple[tuple[str, int], ...], kind: str) -> None:
    address = read_address(url)
    assert (address.hosts, address.kind) == (hosts, kind)
    assert address.is_tls == url.startswith("rediss")


def test_a_secret_is_a_readable_file_of_32_characters_and_no_word_of_it_is_repeated(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    given = {"listen": "x", "verifiers": {"a": "b"}, "cache_secret_file": file}
    with pytest.raises(SettingsError, match=r"cache_secret_file: .*secret: No such file"):
        checked(AggregatorConfig, given, "")
    for text in ("", "\n" * 40, "x" * 31 + " \n"):
        file.write_text(text)
        with pytest.raises(SettingsError, match="openssl rand -hex 32") as refused:
            checked(AggregatorConfig, given, "")
        assert "xxx" not in str(refused.value)
    file.write_text("x" * 32)
    secret = checked(AggregatorConfig, given, "").cache_secret()
    file.write_text("x" * 32 + "\n")
    assert checked(AggregatorConfig, given, "").cache_secret() == secret
    file.write_text("x" * 200)
    assert secret != checked(AggregatorConfig, given, "").cache_secret() != b""
    assert checked(AggregatorConfig, {"listen": "x", "verifiers": {"a": "b"}}, "").cache_secret() == b""


def test_a_password_stands_in_the_file_or_in_the_address_and_not_in_both() -> None:
    common = {"listen": "x", "verifiers": {"a": "b"}, "redis_password_file": "/run/password"}
    with pytest.raises(SettingsError, match="redis_password_file: redis_url has a password of its own"):
        checked(AggregatorConfig, {**common, "redis_url": f"redis://:{SECRET}@redis"}, "")
    with pytest.raises(SettingsError, match="redis_password_file: redis_url is missing"):
        checked(AggregatorConfig, common, "")
    assert checked(AggregatorConfig, {**common, "redis_url": "redis://scores@redis"}, "").redis_password_file
