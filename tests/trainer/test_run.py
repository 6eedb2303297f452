"""The record of a run on disk."""

from bioverify_trainer.runs.folder import RunFolder, read_records


def test_steps_that_a_full_disk_and_a_kill_took_from_the_record_are_named_when_the_run_goes_on(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 5, 6, 7):
        folder.append_metrics({"step": step})
    folder.forget_after(6)
    assert [record["step"] for record in read_records(folder.metrics_file)] == [1, 2, 5, 6]
    assert "metrics.jsonl lacks steps that were trained: [3, 4]" in caplog.text
