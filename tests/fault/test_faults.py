"""Zero wrong numbers under any fault, over ten thousand items a scenario; `make test-fault` runs it."""

import pytest

from tests.fault.conftest import JOB_ITEMS, QUICK_ITEMS
from tests.fault.scenarios import QUICK, SCENARIOS


def check(bench, name, n_items):
    verdict, row = bench.run(name, n_items)
    assert verdict.is_clean, row
    assert SCENARIOS[name].may_fail or verdict.failed == 0, f"a cache or a proxy cost outcomes: {verdict.failures}"
    after, _ = bench.recovered(n_items)
    assert after.is_clean
    assert after.failed == 0, f"after {name} is over, items still fail: {after.failures}"


@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_number_is_wrong_and_no_item_lost_under(name, bench):
    check(bench, name, JOB_ITEMS)


@pytest.mark.parametrize("name", QUICK)
def test_in_short_no_number_is_wrong_and_no_item_lost_under(name, bench):
    check(bench, name, QUICK_ITEMS)
