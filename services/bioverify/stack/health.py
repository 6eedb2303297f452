"""Do the web pages and the cache answer? Services are asked by bioverify.client.health."""

from __future__ import annotations

import httpx
import redis


def page_answers(url: str, timeout_s: float = 3.0) -> bool:
    """Whether an HTTP server answers this URL with success."""
    try:
        return httpx.get(url, timeout=timeout_s, trust_env=False).is_success
    except httpx.TransportError:
        return False


def cache_answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a Redis or Valkey answers PING."""
    connection = redis.Redis.from_url(url, socket_timeout=timeout_s)
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
    finally:
        connection.close()
