"""What travels beside every call: the id under which all services log it."""

from __future__ import annotations

REQUEST_ID = "x-request-id"
"""Metadata key; the caller's own is kept, passed on and given back."""
