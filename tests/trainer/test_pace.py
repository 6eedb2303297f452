"""Where a step's seconds go, by a clock that the test turns."""

import pytest
import torch

from bioverify_trainer import pace
from bioverify_trainer.pace import PARTS, PREFIX, Pace, innermost


@pytest.fixture
def clock(monkeypatch):
    """What `time.perf_counter` says; to be advanced by adding to its one number."""
    now = [100.0]
    monkeypatch.setattr("bioverify_trainer.pace.time.perf_counter", lambda: now[0])
    return now


def test_a_part_inside_of_another_is_counted_once_and_the_shares_add_up_to_one(clock):
    measured = Pace(weights=10, forward_passes=3)
    with measured.measuring("generation"):
        clock[0] += 1
        with measured.measuring("weights_to_vllm"):
            clock[0] += 2
        clock[0] += 3
    with measured.measuring("rewards"):
        clock[0] += 1
    found = measured.figures(10.0, None, 1)
    assert found == {
        "pace/generation": pytest.approx(0.4),
        "pace/weights_to_vllm": pytest.approx(0.2),
        "pace/rewards": pytest.approx(0.1),
        "pace/optimiser": 0,
        "pace/rest": pytest.approx(0.3),
    }


def test_what_raises_is_counted_too(clock):
    measured = Pace(weights=10, forward_passes=3)

    @measured.measuring("rewards")
    def fails():
        clock[0] += 4
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert measured.figures(8.0, None, 1)["pace/rewards"] == 0.5


def test_mfu_is_six_operations_per_weight_and_token_over_what_the_cards_can(monkeypatch):
    measured = Pace(weights=3_000_000_000, forward_passes=3)
    assert "pace/mfu" not in measured.figures(2.0, 20_000, 8)
    monkeypatch.setattr(pace, "_flops_of_card", lambda: 1e15)
    found = measured.figures(2.0, 20_000, 8)
    assert found["pace/tokens_per_second"] == 10_000
    assert found["pace/mfu"] == pytest.approx(6 * 3e9 * 20_000 / (2.0 * 8 * 1e15))
    only_adapters = Pace(weights=3_000_000_000, forward_passes=2)
    assert only_adapters.figures(2.0, 20_000, 8)["pace/mfu"] == pytest.approx(4 / 6 * found["pace/mfu"])


def test_the_optimiser_is_torchs_own_inside_of_others():
    class Around:
        def __init__(self, inner):
            self.optimizer = inner

    weight = torch.nn.Parameter(torch.ones(2))
    own = torch.optim.SGD([weight], lr=0.1)
    assert innermost(Around(Around(own))) is own


def test_every_step_of_a_run_has_its_pace(recipe, tiny_preset, store, lasting_target, tmp_path):
    from bioverify_trainer.runs.folder import read_records
    from bioverify_trainer.train import train

    trained = train(recipe, tiny_preset, target=lasting_target, output=tmp_path / "run", store=store)
    records = read_records(trained.folder.metrics_file)
    assert len(records) == 2
    tokens = 0
    for record in records:
        shares = [record[PREFIX + part] for part in (*PARTS, "rest")]
        assert sum(shares) == pytest.approx(1)
        assert all(record[PREFIX + part] > 0 for part in ("rewards", "generation", "optimiser", "rest"))
        assert record["pace/weights_to_vllm"] == 0
        # The clock of the pace stops a moment before that of the record.
        assert record["pace/tokens_per_second"] * record["step_seconds"] == pytest.approx(
            record["num_tokens"] - tokens, rel=0.05
        )
        tokens = record["num_tokens"]
