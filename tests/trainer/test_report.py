"""The report: one file, nothing fetched, nothing of a model's text taken for markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bioverify import recipes
from bioverify.client import ListedVerifier
from bioverify.core.verifier import ArtifactIdentity, Reads
from bioverify_trainer.preset import load_preset
from bioverify_trainer.runs.folder import RunError, RunFolder, run_config
from bioverify_trainer.runs.report import choose_examples, make_plots, summarise, write_report

HOSTILE = '<think> <script>alert("x")</script> <img src=http://example.org/x.png> </think> & <answer> yes </answer>'


def listed(*, simulated: bool) -> ListedVerifier:
    artifact = ArtifactIdentity("experimental-perturbqa", "sha256:" + "ab" * 32, "CC0", (), simulated=simulated)
    return ListedVerifier(
        "experimental", "unix:/x", True, None, "1", "f" * 32, "", (), Reads.TASK, True, {}, (artifact,)
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "my-run")
    config = run_config(
        recipes.load("rbio1-exp"),
        load_preset("cpu"),
        [listed(simulated=True)],
        target="unix:/x",
        simulated=True,
        policy_path="tiny",
    )
    folder.write_config(config)
    for step in range(1, 5):
        scored = step != 3
        folder.append_metrics(
            {
                "step": step,
                "step_seconds": 2.0,
                "reward": step / 2 if scored else None,
                "reward_call/failed": 0.0 if scored else 1.0,
                "reward_call/unscorable": 0.0 if scored else 1.0,
            }
            | (
                {
                    "reward_call/seconds": 0.01,
                    "value/format": step / 4,
                    "contribution/format": step / 4,
                    "contribution/experimental": step / 4,
                    "verifier/format/seconds": 0.002,
                    "verifier/format/cache_hits": 0.5,
                    "verifier/experimental/failed": 0.0,
                }
                if scored
                else {}
            )
        )
        folder.append_sample(
            {
                "step": step,
                "id": f"{step}-0",
                "group_id": f"0-{step}",
                "source": "experimental",
                "question": "Is a knockdown of <b>A</b> likely?",
                "completion": HOSTILE,
                "reward": step / 2 if scored else None,
                "unscorable_because": "" if scored else "format failed: unavailable",
                "parts": [
                    {
                        "term": "experimental",
                        "weight": 2.0,
                        "value": 1.0,
                        "contribution": 2.0,
                        "dropped_because": "",
                        "reason": "",
                        "evidence": [{"text": "K562: A down & B <up>", "source": "screen", "simulated": True}],
                    }
                ],
            }
        )
    return folder


def html_of(run: RunFolder, **options) -> str:
    output = run.path / "report.html"
    write_report(run.path, output, **options)
    return output.read_text()


class References(HTMLParser):
    """What a page would fetch or follow, and what it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in {"src", "href", "data", "xlink:href", "action"}]


def test_the_page_is_one_file_that_fetches_and_runs_nothing(run):
    page = html_of(run)
    references = References()
    references.feed(page)
    # Links within the drawings point to their own parts.
    assert all(reference.startswith("#") for reference in references.found)
    assert not {"script", "link", "img", "iframe", "object"} & set(references.tags)
    assert not re.search(r"url\((?!['\"]?#)", page)
    assert references.tags.count("svg") == 7


def test_what_teaches_and_where_the_time_goes_are_figures_if_the_run_recorded_them(run):
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    titles = {plot.title for plot in make_plots(records)}
    assert not titles & {"What teaches", "Where the time goes"}
    for record in records:
        record |= {"frac_reward_zero_std": 0.5, "kl": 0.01, "pace/rewards": 0.02, "pace/tokens_per_second": 9000.0}
    plots = {plot.title: plot.svg for plot in make_plots(records)}
    for name in ("frac_reward_zero_std", "kl"):
        assert name in plots["What teaches"]
    assert "entropy" not in plots["What teaches"]
    assert "rewards" in plots["Where the time goes"]
    # On an axis of shares.
    assert "tokens_per_second" not in plots["Where the time goes"]


def test_text_of_a_model_is_shown_and_not_obeyed(run):
    page = html_of(run)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(" in page
    assert "A down &amp; B &lt;up&gt;" in page
    assert "knockdown of &lt;b&gt;A&lt;/b&gt;" in page


def test_simulated_data_are_announced_before_any_figure(run):
    page = html_of(run)
    assert page.index("Simulated data.") < page.index("<svg")
    config = json.loads(run.config_file.read_text())
    run.write_config(config | {"simulated": False})
    assert "Simulated data." not in html_of(run)
    assert "Measured data." in html_of(run)


def test_a_step_without_rewards_is_a_gap_and_counted_but_never_zero(run):
    metrics = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    summary = summarise(metrics)
    assert summary["failed_calls"] == 1
    assert summary["unscorable"] == 0.25
    assert summary["rows"][0] == {"name": "reward", "first": 0.5, "last": 2.0}
    assert summarise([{"step": 1, "reward": None}])["rows"][0]["first"] is None


def test_the_examples_are_an_early_one_the_best_and_a_late_one(run):
    samples = [json.loads(line) for line in run.samples_file.read_text().splitlines()]
    assert [sample["step"] for sample in choose_examples(samples)] == [1, 2, 4]
    assert [sample["step"] for sample in choose_examples(samples[2:3])] == [3]
    assert choose_examples([]) == []


def test_a_scored_file_is_shown_beside_the_run(run, tmp_path):
    part = {"verifier": "format", "component": "mention", "value": 0.5, "outcome": "scored"}
    missing = {"verifier": "esm_mlp", "component": "", "value": None, "outcome": "not_applicable"}
    scores = tmp_path / "scores.jsonl"
    scores.write_text("".join(json.dumps({"reward": 1.5, "parts": [part, missing]}) + "\n" for _ in range(3)))
    page = html_of(run, scores=scores)
    assert "3 completions, mean reward 1.50" in page
    assert "format.mention" in page
    scores.write_text('{"other": 1}\n')
    with pytest.raises(RunError, match="not what `bioverify score` writes"):
        html_of(run, scores=scores)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"holds no run \(no run\.json\)"):
        write_report(tmp_path, tmp_path / "report.html")
