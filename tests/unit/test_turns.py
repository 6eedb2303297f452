"""Whose turn it is among the gateway's jobs."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from bioverify.gateway.turns import Turns


def taken(turns: Turns, count: int) -> list[str]:
    return [turns.next() or "" for _ in range(count)]


def test_owners_take_turns_and_the_jobs_of_each_keep_their_order() -> None:
    turns = Turns()
    for job in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.add(job[0], job)
    assert taken(turns, 6) == ["a1", "b1", "c1", "a2", "c2", "a3"]


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_no_owner_waits_for_more_than_one_job_of_each_other_owner(owners: list[str]) -> None:
    turns = Turns()
    for number, owner in enumerate(owners):
        turns.add(owner, f"{owner}{number}")
    order = taken(turns, len(owners))
    assert sorted(order) == sorted(f"{owner}{number}" for number, owner in enumerate(owners))
    for owner in set(owners):
        mine = [int(job[1:]) for job in order if job[0] == owner]
        assert mine == sorted(mine)
        assert next(place for place, job in enumerate(order) if job[0] == owner) < len(set(owners))


def test_a_job_that_waits_for_its_time_holds_nobody_back_and_comes_then() -> None:
    turns = Turns()
    turns.add("a", "later", after_s=0.2)
    turns.add("a", "now")
    assert turns.next() == "now"
    assert not turns.is_asked_for("b")
    assert turns.next() == "later"


def test_a_job_is_taken_out_of_the_queue_unless_a_worker_has_it() -> None:
    turns = Turns()
    turns.add("a", "waits", after_s=600)
    turns.add("a", "queued")
    turns.add("b", "taken")
    assert turns.remove("waits")
    assert turns.remove("queued")
    assert turns.next() == "taken"
    assert not turns.remove("taken")


def test_who_waits_for_a_job_is_let_go_when_the_queue_is_closed() -> None:
    turns = Turns()
    found: list[str | None] = []
    waiting = threading.Thread(target=lambda: found.append(turns.next()))
    waiting.start()
    turns.close()
    waiting.join(10)
    assert found == [None]
