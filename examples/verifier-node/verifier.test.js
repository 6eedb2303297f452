import assert from "node:assert/strict";
import { test } from "node:test";
import { score } from "./verifier.js";

const asks = (perturbation, completion) => ({
  task: { kind: "differential_expression", differential_expression: { perturbation, measured_gene: "TRIB3", cell_line: "k562" } },
  completion,
});
const value = (completion) => score(asks("AARS", completion), true).scored.value;

test("the right amino acid alone is worth one", () => {
  assert.equal(value("AARS charges tRNA with alanine. TRIB3 needs serine."), 1);
  assert.equal(value("AARS1 is the alanyl-tRNA synthetase"), 1);
});

test("another beside it is worth half, another alone or none nothing", () => {
  assert.equal(value("AARS charges alanine or glycine."), 0.5);
  assert.equal(value("AARS charges arginine. Alanine is an amino acid."), 0);
  assert.equal(value("AARS is essential."), 0);
});

test("a longer symbol is another gene", () => {
  assert.equal(value("AARSD1 binds alanine."), 0);
});

test("what is not in the table is not applicable", () => {
  assert.equal(score(asks("BRCA1", "BRCA1 repairs DNA."), true).not_applicable.reason, "no_known_synthetase");
  assert.equal(score({ completion: "" }, true).not_applicable.reason, "unrecognised_question");
});

test("evidence says what the table and the completion say", () => {
  const { evidence } = score(asks("AARS", "AARS charges serine."), true).scored;
  assert.equal(evidence[0].text, "AARS1 charges alanine; the completion names serine");
});
