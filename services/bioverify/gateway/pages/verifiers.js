import { askJson, attempt, say } from "./common.js";
import { coverageTable, questionsOf } from "./coverage.js";
import { element, number } from "./elements.js";
import { calibrations } from "./evidence.js";

const CALLS = 9;
const list = document.getElementById("verifiers");
const measured = new Map();
let shown = "";

async function refresh() {
  const { verifiers } = await askJson("v1/verifiers");
  const ready = verifiers.filter((verifier) => verifier.is_ready).length;
  say(`${ready} of ${verifiers.length} answer.`, ready === verifiers.length ? "" : "warn");
  // A person may have a table open: cards are made again only if something has changed.
  const state = JSON.stringify([verifiers, [...measured]]);
  if (state === shown) return verifiers;
  shown = state;
  const open = new Set([...list.querySelectorAll("details[open]")].map((each) => each.dataset.name));
  list.replaceChildren(...verifiers.map((verifier) => card(verifier, open)));
  return verifiers;
}

// Calls of one completion each, which no cache has seen, one after the other: what a person who asks once waits for.
async function time() {
  for (const verifier of (await refresh()).filter((each) => each.is_ready)) {
    const [walls, works] = [[], []];
    for (let call = 0; call < CALLS; call += 1) {
      say(`Asking ${verifier.name}, ${call + 1} of ${CALLS}…`);
      const items = [{ id: "1", prompt: "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of TRIB3?", completion: `<think>${crypto.randomUUID()}</think> <answer>yes</answer>` }];
      const started = performance.now();
      const { verifiers } = await askJson(`v1/verifiers/${verifier.name}:score`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ items }) });
      walls.push(performance.now() - started);
      if (verifiers[0] && !verifiers[0].cache_hits) works.push(1000 * verifiers[0].work_s);
    }
    measured.set(verifier.name, { wall: middle(walls), most: Math.max(...walls), work: works.length ? middle(works) : null });
  }
  await refresh();
}

const middle = (values) => [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];

function card(verifier, open) {
  const state = verifier.is_ready ? element("span", { class: "tag good" }, "ready") : element("span", { class: "tag bad" }, "not ready");
  const latency = measured.get(verifier.name);
  return element(
    "article",
    { class: "card" },
    element("h2", {}, verifier.name, " ", element("small", {}, state)),
    verifier.is_ready ? element("p", {}, verifier.summary) : element("p", { class: "bad" }, verifier.failure?.detail ?? ""),
    element(
      "dl",
      { class: "facts" },
      tile("version", verifier.version || "–"),
      tile("belief", verifier.is_ready ? (verifier.holds_belief ? "holds one" : "holds none") : "–"),
      ...verifier.artifacts.flatMap((artifact) => coverage(artifact.figures)),
      tile("latency of one", latency ? `${number(latency.wall, 0)} ms` : "not measured"),
      latency ? tile("slowest of nine", `${number(latency.most, 0)} ms`) : null,
      latency?.work != null ? tile("of it at work", `${number(latency.work, 1)} ms`) : null,
    ),
    calibration(verifier, open),
    element("details", { "data-name": verifier.name, open: open.has(verifier.name) }, element("summary", {}, "Artifact, address, fields"), details(verifier)),
  );
}

// How far its beliefs can be taken at their word, for each cell line and kind of question that it was measured on.
function calibration(verifier, open) {
  const pictures = calibrations(Object.assign({}, ...verifier.artifacts.map((artifact) => artifact.figures)), verifier.name);
  if (!pictures.length) return null;
  const name = `calibration ${verifier.name}`;
  return element("details", { "data-name": name, open: open.has(name) }, element("summary", {}, `Calibration: ${pictures.length} ${pictures.length === 1 ? "picture" : "pictures"}`), element("div", { class: "columns" }, pictures));
}

function details(verifier) {
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Facts of ${verifier.name}` },
    element(
      "table",
      {},
      element(
        "tbody",
        {},
        fact("fingerprint", element("code", {}, verifier.fingerprint)),
        fact("address", verifier.target),
        fact("answers", verifier.task_kinds.map((kind) => kind.replaceAll("_", " ")).join(", ") || "every kind of question"),
        fact("reads", verifier.reads.join(", ")),
        ...verifier.artifacts.map((artifact) =>
          fact(
            `artifact ${artifact.name}`,
            element("div", {}, element("code", {}, artifact.digest.slice(0, 19)), artifact.simulated ? element("span", { class: "tag warn" }, "simulated") : null, element("span", { class: "soft" }, ` ${artifact.license}`), figures(artifact.figures)),
          ),
        ),
        fact("components", element("ul", { class: "plain" }, Object.entries(verifier.components).map(([name, meaning]) => element("li", {}, element("code", {}, name), ` ${meaning}`)))),
      ),
    ),
  );
}

// Shares first, then the counts that say how much it knows.
function coverage(figures) {
  const tiles = [];
  for (const [name, words] of [["rows_with_vectors", "screen covered"], ["resolved_symbols", "symbols resolved"]])
    if (name in figures) tiles.push(tile(words, `${(100 * figures[name]).toFixed(1)} %`));
  for (const [name, words] of [["symbols", "genes"], ["genes", "genes"], ["vectors", "genes"], ["gene_term_pairs", "annotations"], ["cells", "cells"], ["rows", "training rows"]])
    if (name in figures && !("protein_coding_genes" in figures)) tiles.push(tile(words, figures[name].toLocaleString()));
  const pairs = Object.entries(figures).filter(([name]) => name.endsWith(".pairs")).reduce((sum, [, count]) => sum + count, 0);
  if (pairs) tiles.push(tile("pairs measured", pairs.toLocaleString()));
  return tiles;
}

function figures(all) {
  const rows = Object.entries(all).sort(([one], [other]) => one.localeCompare(other));
  if (!rows.length) return null;
  return element("details", {}, element("summary", {}, `${rows.length} figures of its making`), element("ul", { class: "plain" }, rows.map(([name, value]) => element("li", {}, element("code", {}, name), ` ${Number.isInteger(value) ? value.toLocaleString() : number(value, 4)}`))));
}

const tile = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
const fact = (name, value) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value));

document.getElementById("time").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  button.disabled = true;
  await attempt(time);
  button.disabled = false;
});
document.getElementById("coverage-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [first, second, line] = ["gene-a", "gene-b", "line"].map((id) => document.getElementById(id).value.trim());
  attempt(async () => {
    const ready = (await askJson("v1/verifiers")).verifiers.filter((verifier) => verifier.is_ready);
    const questions = questionsOf(first, second, line);
    const weights = Object.fromEntries(ready.map((verifier) => [verifier.name, 1]));
    const { rewards } = await askJson("v1/score", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ items: questions.map(({ item }) => item), weights }) });
    document.getElementById("coverage").replaceChildren(coverageTable(questions, ready, rewards));
  });
});
for (;;) {
  await attempt(refresh);
  await new Promise((resolve) => setTimeout(resolve, 10000));
}
