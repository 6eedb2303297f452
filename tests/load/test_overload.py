"""The bounds that the measurements of overload.py must keep."""

import asyncio

import pytest

from tests.load import overload

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def measured():
    report = {name: asyncio.run(measure()) for name, measure in overload.MEASUREMENTS.items()}
    overload.write(report)
    return report


def test_at_four_times_capacity_what_fits_is_done_and_the_rest_refused_at_once(measured):
    found = measured["overload"]
    assert found["goodput_of_capacity"] >= 0.9, found
    assert set(found["ends"]) == {"OK", "RESOURCE_EXHAUSTED"}, found
    assert found["refused_after_ms_median"] <= 20, found
    assert found["health_ms_p99"] < 100, found


def test_at_sigterm_every_accepted_call_is_answered(measured):
    assert measured["sigterm"]["ends"] == {"OK": measured["sigterm"]["calls"]}
    assert measured["sigterm"]["exit_code"] == 0
    assert measured["sigterm"]["gone_after_s"] < 10


def test_without_redis_nothing_fails_and_little_is_slower(measured):
    assert set(measured["redis gone"]["ends"]) == {"OK"}
    assert measured["redis gone"]["throughput_of_cold_cache"] >= 0.8


def test_a_black_hole_costs_a_deadline_at_first_and_nothing_later(measured):
    found = measured["black hole"]
    assert set(found["ends"]) == {"OK"}, found
    assert found["first_calls_max_ms"] <= found["deadline_ms"] + 50, found
    assert found["p99_ms_of_the_last_half"] <= 1.2 * found["healthy_p99_ms"], found
