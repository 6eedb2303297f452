"""Evaluation: held-out questions, baselines, models of every kind, figures with intervals."""

from __future__ import annotations

import http.server
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score
from typer.testing import CliRunner

from bioverify.artifacts.perturbqa import read_tables
from bioverify.artifacts.prompts import open_prompts
from bioverify.artifacts.store import ArtifactStore
from bioverify.core.answers import AnswerProblem
from bioverify.core.cell_lines import CELL_LINES
from bioverify.core.metrics import auc_per_gene
from bioverify.core.tasks import DifferentialExpression, TaskKind
from bioverify_trainer.cli import app
from bioverify_trainer.evaluate import baselines, completions
from bioverify_trainer.evaluate.answers import NO_ANSWER, Answers, majority
from bioverify_trainer.evaluate.endpoint import Endpoint, read_belief
from bioverify_trainer.evaluate.local import LocalModel
from bioverify_trainer.evaluate.measures import PerGeneAuc, measure
from bioverify_trainer.evaluate.questions import EvaluationError, Rows, Screens, make_question
from bioverify_trainer.evaluate.verifiers import claim_sums
from bioverify_trainer.model.generation import prompt_ids, write
from bioverify_trainer.model.policy import open_policy
from bioverify_trainer.preset import PromptPreset
from bioverify_trainer.prompts import make_prompt
from tests.trainer.conftest import question_table

DE = TaskKind.DIFFERENTIAL_EXPRESSION
PROMPTS = PromptPreset(example_turns=1)


@pytest.fixture(scope="module")
def screens() -> Screens:
    return Screens.read(question_table())


def sklearn_auc_per_gene(gene, label, score):
    return [
        roc_auc_score(label[gene == one], score[gene == one])
        for one in np.unique(gene)
        if len(np.unique(label[gene == one])) == 2
    ]


@pytest.mark.parametrize("seed", range(20))
def test_auc_per_gene_is_scikit_learns_per_gene_with_ties(seed):
    rng = np.random.default_rng(seed)
    gene, label = rng.integers(0, 12, 300), rng.integers(0, 2, 300)
    score = rng.integers(0, 6, 300) / 5
    expected = sklearn_auc_per_gene(gene, label, score)
    auc, genes = auc_per_gene(gene, label, score)
    assert genes == len(expected)
    assert auc == pytest.approx(np.mean(expected), abs=1e-12)
    weighted = PerGeneAuc(gene, label, score)
    assert weighted.n_genes == genes
    assert weighted(np.ones(300)) == pytest.approx(auc, abs=1e-12)


def test_a_weight_is_as_many_copies_of_the_row():
    rng = np.random.default_rng(1)
    gene, label, score = rng.integers(0, 5, 80), rng.integers(0, 2, 80), rng.integers(0, 4, 80) / 3
    weight = rng.integers(0, 4, 80)
    copies = [np.repeat(column, weight) for column in (gene, label, score)]
    assert PerGeneAuc(gene, label, score)(weight.astype(float)) == pytest.approx(auc_per_gene(*copies)[0])


def simulated_screen(seed):
    """Rows of 120 genes in 80 perturbations, beliefs that rank well whose gene responds often, and the true mean AUC.

    A third of the genes respond to one or two perturbations, and the rows of a perturbation share their noise.
    """
    n_genes, n_perturbations, shared = 120, 80, 0.5
    rng = np.random.default_rng(seed)
    rate = rng.choice([0.02, 0.1, 0.4], n_genes)
    shift = np.select([rate < 0.05, rate < 0.2], [0.0, 0.5], 1.0)
    gene = np.repeat(np.arange(n_genes), n_perturbations)
    perturbation = np.tile(np.arange(n_perturbations), n_genes)
    label = (rng.random(len(gene)) < rate[gene]).astype(np.int64)
    noise = shared * rng.normal(size=n_perturbations)[perturbation] + rng.normal(size=len(gene))
    score = shift[gene] * label + noise
    positives = np.bincount(gene, label, n_genes)
    # Two rows of a gene are of different perturbations: the shared noise is as good as the own.
    auc = np.array([(1 + math.erf(one / 2 / math.sqrt(1 + shared**2))) / 2 for one in shift])
    screens = Screens(("k562",), tuple(f"G{code}" for code in range(n_genes + n_perturbations)), True, pa.table({}))
    rows = Rows(screens, DE, np.zeros(len(gene), np.int64), perturbation + n_genes, gene, label)
    belief = 1 / (1 + np.exp(-score))
    answers = Answers((belief > 0.5).astype(np.int64), belief)
    return rows, answers, auc[(positives > 0) & (positives < n_perturbations)].mean()


def test_the_interval_of_per_gene_auc_holds_the_truth_in_95_of_100_screens():
    held = 0
    for seed in range(200):
        rows, answers, truth = simulated_screen(seed)
        figure = measure(rows, answers, resamples=1).figures["auc_per_gene"]
        assert figure.low < figure.value < figure.high
        held += figure.low <= truth <= figure.high
    # Two standard deviations of 200 draws at .95, and one more to the wide side, which is meant.
    assert 0.92 <= held / 200 <= 0.985


def test_an_answer_that_cannot_be_read_is_wrong_whichever_the_label(screens):
    rows = screens.rows(DE, "test")
    answer = np.where(rows.label == 1, 1, NO_ANSWER)
    measured = measure(rows, Answers(answer, np.full(len(rows), 0.5)), resamples=50)
    assert measured.figures["recall"].value == 1
    assert measured.figures["specificity"].value == 0
    assert measured.figures["coverage"].value == rows.label.mean()


def test_the_pooled_figures_are_scikit_learns(screens):
    rows = screens.rows(DE, "test")
    rng = np.random.default_rng(0)
    answer = rng.integers(0, 2, len(rows))
    figures = measure(rows, Answers(answer, rng.random(len(rows))), resamples=50).figures
    assert figures["f1"].value == pytest.approx(f1_score(rows.label, answer))
    assert figures["mcc"].value == pytest.approx(matthews_corrcoef(rows.label, answer))
    assert figures["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(rows.label, answer))
    for figure in figures.values():
        assert math.isnan(figure.value) or figure.low <= figure.high


def test_claim_precision_is_a_mean_over_completions_that_claim_something(screens):
    rows = screens.rows(DE, "test")
    said = np.random.default_rng(0).integers(0, 2, len(rows))
    answered = (rows.label, rows.label.astype(float), None)
    # Two completions a question; of a question of which nothing is known the verifier says that it does not apply.
    claims = np.array([(2, 1 + one, 0.8 + one * 0.2, one) if row else (0, 0, 0, 0) for row, one in enumerate(said)])
    figures = measure(rows, Answers(*answered, claims), resamples=200).figures
    checked = claims[:, 1].sum()
    assert figures["claim_precision"].value == pytest.approx(claims[:, 2].sum() / checked)
    assert figures["claim_precision"].value > 0.5
    assert figures["with_claims"].value == pytest.approx(checked / (2 * (len(rows) - 1)))
    assert figures["contradicted"].value == pytest.approx(claims[:, 3].sum() / checked)
    for name in ("claim_precision", "with_claims", "contradicted"):
        assert figures[name].low < figures[name].value < figures[name].high, name
    silent = measure(rows, Answers(*answered, np.tile([1.0, 0, 0, 0], (len(rows), 1))), resamples=5).figures
    assert math.isnan(silent["claim_precision"].value)
    assert silent["with_claims"].value == 0
    assert "claim_precision" not in measure(rows, Answers(*answered), resamples=5).figures


TRUE_CLAIM = "AARS1 takes part in alanyl-tRNA aminoacylation."
FALSE_CLAIM = "ASNS does not take part in asparagine biosynthetic process."


def test_the_command_reports_the_claims_of_stored_completions(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("BIOVERIFY_HOME", str(stack.home))
    rows = Screens.read(open_prompts(ArtifactStore(stack.home / "artifacts"))[0]).rows(DE, "test", ["k562"])
    tasks = [rows.task(row) for row in range(20)]
    known = [task for task in tasks if claim_sums([(task, "")], stack.target)[0, 0]][:4]
    texts = (f"{TRUE_CLAIM} It is so.", FALSE_CLAIM, "It is so.")
    lines = [
        {"prompt": task.question, "completion": f"<think>{text}</think> <answer>yes</answer>"}
        for task in known
        for text in texts
    ]
    path = tmp_path / "written.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [
        "eval",
        "--model",
        str(path),
        "--line",
        "k562",
        "--resamples",
        "20",
        "--output",
        str(tmp_path / "eval"),
    ]

    done = CliRunner().invoke(app, [*arguments, "--target", stack.target])
    without = CliRunner().invoke(app, [*arguments, "--target", stack.target, "--no-claims"])
    refused = CliRunner().invoke(app, [*arguments, "--target", "127.0.0.1:1", "--claims"])
    nobody = CliRunner().invoke(app, [*arguments, "--target", "127.0.0.1:1"])

    assert len(known) == 4
    assert done.exit_code == without.exit_code == nobody.exit_code == 0, done.output
    assert "| claim precision | with claims | contradicted |" in done.stdout
    assert "| .250 [.250, .250] | .667 [.667, .667] | .500 [.500, .500] |" in done.stdout
    assert "claim" not in without.output
    assert "claim" not in nobody.stdout
    assert "were not checked: no verifier claims at 127.0.0.1:1" in nobody.stderr
    assert refused.exit_code == 2
    assert "--claims: no verifier claims answers at 127.0.0.1:1" in " ".join(refused.stderr.split())
    assert "bioverify data build claims && bioverify up" in " ".join(refused.stderr.split())


def test_the_mlp_baseline_says_yes_from_a_belief_of_one_half(stack):
    rows = Screens.read(open_prompts(ArtifactStore(stack.home / "artifacts"))[0]).rows(DE, "test", ["k562"])
    answers = baselines.answer("mlp", rows.where(np.arange(20)), target=stack.target)
    assert len(set(answers.belief)) > 5
    assert answers.answer.tolist() == (answers.belief >= 0.5).tolist()


def test_a_question_that_claims_do_not_apply_to_counts_nowhere(stack):
    unknown = DifferentialExpression("NOSUCHGENE", "NORTHISONE", "k562")
    assert claim_sums([(unknown, f"<think>{TRUE_CLAIM}</think>")], stack.target).tolist() == [[0, 0, 0, 0]]


def test_the_majority_of_the_samples_answers_and_a_draw_is_decided_by_the_belief():
    problem = AnswerProblem.NO_ANSWER_BLOCK
    assert majority([True, False, True], [None] * 3) == (1, pytest.approx(2 / 3))
    assert majority([True, False], [0.2, 0.4]) == (0, pytest.approx(0.3))
    assert majority([problem, False], [None, None]) == (0, 0.0)
    assert majority([problem, problem], [None, None]) == (NO_ANSWER, 0.5)


def test_a_sample_is_half_positive_with_as_many_rows_of_each_gene():
    table = pa.Table.from_pylist(
        [
            {
                "line": "k562",
                "task_kind": str(DE),
                "perturbation": f"P{p}",
                "measured_gene": f"G{g}",
                "label": int((p + g) % 4 == 0),
                "split": "test",
                "simulated": True,
            }
            for p in range(16)
            for g in range(10)
        ]
    )
    rows = Screens.read(table.set_column(4, "label", table["label"].cast(pa.int8()))).rows(DE, "test")
    sample = rows.sample(24, per_gene=6, seed=0)
    assert len(sample) == 24
    assert sample.label.mean() == 0.5
    assert set(np.unique(sample.measured_gene, return_counts=True)[1]) == {6}
    assert len(np.unique(np.stack([sample.perturbation, sample.measured_gene]), axis=1).T) == 24
    with pytest.raises(EvaluationError, match="need 100 genes, but only 10"):
        rows.sample(600, per_gene=6, seed=0)
    assert len(rows.sample(600, per_gene=6, seed=0, or_fewer=True)) == 60
    with pytest.raises(EvaluationError, match="only 0"):
        rows.sample(600, per_gene=40, seed=0, or_fewer=True)


def test_the_baselines_have_their_known_figures_on_the_real_screens(real_sources):
    screens = Screens.read(_real_table(real_sources))
    f1, mcc, balanced, other_auc = (
        (0.761, 0.839, 0.799, 0.816), (0.725, 0.812, 0.766, 0.786), (0.859, 0.907, 0.889, 0.890),
        (0.614, 0.566, 0.620, 0.618),
    )  # fmt: skip
    for number, line in enumerate(CELL_LINES):
        rows = screens.rows(DE, "test", [line])
        gene_rate = measure(rows, baselines.answer("gene-rate", rows, target=""), resamples=2).figures
        assert gene_rate["f1"].value == pytest.approx(f1[number], abs=0.005)
        assert gene_rate["mcc"].value == pytest.approx(mcc[number], abs=0.005)
        assert gene_rate["balanced_accuracy"].value == pytest.approx(balanced[number], abs=0.005)
        assert gene_rate["auc_per_gene"].value == 0.5
        other = measure(rows, baselines.answer("other-lines", rows, target=""), resamples=2).figures
        assert other["auc_per_gene"].value == pytest.approx(other_auc[number], abs=0.005)
    rows = screens.rows(DE, "test")
    pooled = measure(rows, baselines.answer("gene-rate", rows, target=""), resamples=2).figures
    assert pooled["f1"].value == pytest.approx(0.809, abs=0.005)
    assert pooled["recall"].value == pytest.approx(0.810, abs=0.005)
    always = measure(rows, baselines.answer("always-yes", rows, target=""), resamples=2).figures
    assert always["f1"].value == pytest.approx(0.245, abs=0.005)


def _real_table(sources):
    rows = read_tables(sources, progress=lambda _said: None).rows
    return rows.append_column("simulated", pa.repeat(pa.scalar(False), rows.num_rows))


def test_only_held_out_rows_are_asked(screens):
    train = set(screens.rows(DE, "train").questions())
    test = set(screens.rows(DE, "test").questions())
    assert test
    assert not train & test


class Scripted:
    """Answers a fixed text, and counts what it was asked."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[Any] = []
        self.fail_after = fail_after

    def __call__(self, tasks):
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise EvaluationError("gone")
        self.asked += tasks
        return [[completions.Sample("<think>t</think> <answer>yes</answer>", 0.9)] for _ in tasks]


def test_an_interrupted_evaluation_goes_on_where_it_was(screens, tmp_path):
    rows, path = screens.rows(DE, "test"), tmp_path / "answers.jsonl"
    with pytest.raises(EvaluationError):
        completions.ask(rows, Scripted(fail_after=4), path, samples=1, at_once=4, progress=lambda _: None)
    # As if the fifth line had been under way when the process was killed.
    with path.open("a") as file:
        file.write('{"task": {"differential_exp')
    second = Scripted()
    completions.ask(rows, second, path, samples=1, at_once=4, progress=lambda _: None)
    assert len(second.asked) == len(rows) - 4
    answered, answers, others = completions.read(path, rows)
    assert (len(answered), others) == (len(rows), 0)
    assert (answers.answer == 1).all()
    assert answers.belief == pytest.approx(np.full(len(rows), 0.9))


def test_a_file_of_completions_is_matched_by_its_prompts_and_a_bad_line_is_named(screens, tmp_path):
    rows, path = screens.rows(DE, "test"), tmp_path / "elsewhere.jsonl"
    task = rows.task(3)
    lines = [
        {"prompt": [{"role": "user", "content": task.question}], "completion": "<answer>no</answer>"},
        {"prompt": task.question, "completion": "<answer>no</answer>"},
        {"prompt": "What is the weather?", "completion": "<answer>yes</answer>"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answered, answers, others = completions.read(path, rows)
    assert (len(answered), others) == (1, 1)
    assert answered.task(0) == task
    assert (answers.answer[0], answers.belief[0]) == (0, 0.0)
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(EvaluationError, match="line 1: completion is missing; found: prompt"):
        completions.read(path, rows)


@pytest.mark.slow
def test_a_hundred_thousand_stored_answers_take_seconds(tmp_path):
    table = pa.Table.from_pylist(
        [
            {"line": "k562", "task_kind": str(DE), "perturbation": f"P{p}", "measured_gene": f"G{g}",
             "label": int((7 * p + g) % 8 == 0), "split": "test", "simulated": True}
            for p in range(250) for g in range(400)
        ]
    )  # fmt: skip
    rows = Screens.read(table.set_column(4, "label", table["label"].cast(pa.int8()))).rows(DE, "test")
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for row in range(len(rows)):
            word = "yes" if row % 3 else "no"
            text = f"<think> {rows.task(row).perturbation} acts. </think> <answer> {word} </answer>"
            file.write(json.dumps({"prompt": rows.task(row).question, "completion": text}) + "\n")
    began = time.process_time()
    answered, answers, _ = completions.read(path, rows)
    measured = measure(answered, answers)
    took = time.process_time() - began
    assert measured.rows == 100_000
    assert took < 40, f"{took:.1f} s of CPU"


def local_model(folder, **settings):
    policy = open_policy(str(folder), dtype=torch.float32)
    return LocalModel(policy, PROMPTS, **({"max_tokens": 12, "samples": 1, "temperature": 0} | settings))


def test_a_batch_with_a_shared_beginning_is_answered_as_one_by_one(screens, tiny_policy):
    model = local_model(tiny_policy)
    rows = screens.rows(DE, "test")
    tasks = [rows.task(row) for row in range(5)]
    together = [sample for [sample] in model(tasks)]
    for task, sample in zip(tasks, together, strict=True):
        tokenizer = model._policy.tokenizer
        rendered = tokenizer.apply_chat_template(
            make_prompt(task, "answer", example_turns=1), add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
        alone = model._policy.model.generate(ids, generation_config=model._sampling)[0, ids.shape[1] :]
        assert sample.completion == tokenizer.decode(alone, skip_special_tokens=True).strip()


def test_p_yes_is_read_off_the_token_after_the_answer_tag(screens, tiny_policy):
    model = local_model(tiny_policy)
    task = screens.rows(DE, "test").task(0)
    [[sample]] = model([task])
    tokenizer = model._policy.tokenizer
    prompt = prompt_ids(model._policy, make_question(task, PROMPTS))
    tag = tokenizer("<answer>", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        [written] = write(model._policy.model, [prompt], model._sampling)
        context = prompt + (model._up_to_answer(written))
        logits = model._policy.model(torch.tensor([context])).logits[0, -1]
    assert context[-len(tag) :] == tag or "<answer>" in tokenizer.decode(context)
    yes, no = (sorted(model._first_tokens(word)) for word in ("yes", "no"))
    expected = logits[yes].exp().sum() / (logits[yes].exp().sum() + logits[no].exp().sum())
    assert sample.p_yes == pytest.approx(float(expected), abs=1e-5)


def test_an_adapter_folder_is_a_model(screens, tiny_policy, tmp_path):
    from peft import LoraConfig, get_peft_model

    policy = open_policy(str(tiny_policy), dtype=torch.float32)
    adapted = get_peft_model(policy.model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    adapted.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    tasks = [screens.rows(DE, "test").task(0)]
    plain, changed = local_model(tiny_policy)(tasks), local_model(tmp_path)(tasks)
    assert plain[0][0].p_yes != changed[0][0].p_yes


@contextmanager
def chat_server(refusals: int = 0, answers: Any = None) -> Iterator[tuple[str, list[Any]]]:
    """A small OpenAI-compatible server that answers yes with probability .8, after ``refusals`` times 503.

    ``answers``: gives status and reply in its place.
    """
    bodies: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            nonlocal refusals
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if refusals:
                refusals -= 1
                self.send_response(503)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if body["model"] != "known":
                self.reply(404, {"error": {"message": "no such model"}})
                return
            if answers is not None:
                self.reply(*answers(body))
                return
            bodies.append(body)
            words = ["<think>", "t", "</think>", " <answer>", " yes", "</answer>"]
            content = [{"token": word, "logprob": 0.0, "top_logprobs": []} for word in words]
            content[4]["top_logprobs"] = [
                {"token": " yes", "logprob": math.log(0.6)},
                {"token": "Yes", "logprob": math.log(0.2)},
                {"token": " no", "logprob": math.log(0.2)},
            ]
            choice = {"message": {"role": "assistant", "content": "".join(words)}, "logprobs": {"content": content}}
            self.reply(200, {"choices": [choice] * body["n"]})

        def reply(self, status, content):
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()


def endpoint(address, model="known"):
    return Endpoint(
        address,
        model,
        PROMPTS,
        max_tokens=8,
        samples=2,
        temperature=0.7,
        at_once=2,
        template_arguments={"enable_thinking": False},
    )


def test_an_endpoint_is_asked_again_after_a_refusal_and_its_probabilities_are_read(screens):
    tasks = [screens.rows(DE, "test").task(row) for row in range(3)]
    with chat_server(refusals=2) as (address, bodies):
        answers = endpoint(address)(tasks)
        assert [len(samples) for samples in answers] == [2, 2, 2]
        assert answers[0][0].p_yes == pytest.approx(0.8)
        assert {body["messages"][-1]["content"] for body in bodies} == {task.question for task in tasks}
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)
        with pytest.raises(EvaluationError, match=r"404 .*no such model"):
            endpoint(address, "unknown")(tasks)


def test_an_endpoint_that_knows_other_words_gives_less_and_replies_in_parts_is_read_all_the_same(screens):
    task = screens.rows(DE, "test").task(0)
    bodies = []

    def answers(body):
        bodies.append(body)
        if "max_tokens" in body:
            return 400, {"error": {"message": "'max_tokens' is not supported. Use 'max_completion_tokens' instead."}}
        if "logprobs" in body:
            return 400, {"error": {"message": "logprobs are not supported with this model"}}
        parts = [{"type": "text", "text": "<answer>"}, {"type": "text", "text": "no</answer>"}]
        message = {"role": "assistant", "content": parts, "reasoning_content": "So."}
        return 200, {"choices": [{"message": message}]}

    with chat_server(answers=answers) as (address, _):
        [samples] = endpoint(address)([task])
        # What it refused it is not asked again.
        [again] = endpoint(address)([task])
    assert samples == again == [completions.Sample("<think>So.</think>\n<answer>no</answer>", None)] * 2
    assert [("max_tokens" in body, "logprobs" in body) for body in bodies[:4]] == [
        (True, True),
        (False, True),
        (False, False),
        (False, False),
    ]


def test_an_endpoint_that_refuses_either_word_ends_the_evaluation(screens):
    task = screens.rows(DE, "test").task(0)
    refusal = {"error": {"message": "neither max_tokens nor max_completion_tokens"}}
    with chat_server(answers=lambda _: (400, refusal)) as (address, _), pytest.raises(EvaluationError, match="neither"):
        endpoint(address)([task])


def test_a_file_of_completions_is_read_as_score_reads_it(screens, tmp_path):
    rows = screens.rows(DE, "test")
    task = rows.task(0)
    genes = {"perturbation": task.perturbation, "measured_gene": task.measured_gene, "cell_line": task.cell_line}
    asked = [{"role": "user", "content": task.question}]
    forms = [
        {
            "task": {"differential_expression": genes},
            "completion": "<think>So it must be.</think> <answer>yes</answer>",
        },
        {"messages": asked, "completion": "<answer>yes</answer>", "reasoning_content": "So it must be."},
        {
            "messages": [
                *asked,
                {"role": "assistant", "content": "<answer>yes</answer>", "thinking": "So it must be."},
            ]
        },
        {
            "prompt": f"{task.question}\n<think>",
            "completion": "So it must be.</think> <answer>yes</answer><|im_end|>",
        },
    ]
    for number, form in enumerate(forms):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(form).encode())
        _, answers, others = completions.read(path, rows)
        assert (answers.answer.tolist(), others) == ([1], 0), form
        assert answers.format_score[0] == pytest.approx(1.0), form


def test_a_reply_without_probabilities_has_no_belief():
    assert read_belief(None, "yes", "no") is None
    token = {"token": "x", "logprob": 0.0, "top_logprobs": [{"token": "yes", "logprob": 0.0}]}
    assert read_belief({"content": [token]}, "yes", "no") is None


def test_the_command_measures_a_checkpoint_an_endpoint_and_the_baselines(store, tiny_policy, tmp_path, monkeypatch):
    monkeypatch.setenv("BIOVERIFY_HOME", str(store.root.parent))
    with chat_server() as (address, _):
        arguments = ["eval", "--model", str(tiny_policy), "--model", f"{address}#known", "--line", "k562", "--line"]
        arguments += ["rpe1", "--max-tokens", "8", "--resamples", "20", "--output", str(tmp_path / "eval")]
        done = CliRunner().invoke(app, [*arguments, "--json", "-"])
        assert done.exit_code == 0, done.output
        again = CliRunner().invoke(app, [*arguments, "--json", "-"])
        refused = CliRunner().invoke(app, [*arguments, "--temperature", "0.5"])
    results = json.loads(done.stdout)["results"]
    assert json.loads(again.stdout)["results"] == results
    assert refused.exit_code == 2
    assert "holds answers to other settings" in " ".join(refused.stderr.split())
    models = {str(tiny_policy), f"{address}#known", "baseline:always-yes", "baseline:gene-rate", "baseline:other-lines"}
    assert {(r["model"], r["line"]) for r in results} == {(m, line) for m in models for line in ("k562", "rpe1", "all")}
    asked = next(r for r in results if r["model"].startswith("http") and r["line"] == "all")
    assert asked["figures"]["coverage"]["value"] == 1
    assert asked["figures"]["yes_share"]["value"] == 1
    assert asked["figures"]["recall"]["value"] == 1
    # In the table of the tests a gene always has the same label.
    assert asked["figures"]["auc_per_gene"]["value"] is None
    for name in ("results.json", "results.md", "results.tex", "results.svg"):
        assert (tmp_path / "eval" / name).stat().st_size > 0
