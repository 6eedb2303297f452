// One completion's reward: the verdict first, then what was measured, what is believed, what is known, the form last.
import { attempt } from "./common.js";
import { drawn, element, label, number } from "./elements.js";
import { acrossLines, affirming, figuresOf, histogram, reliability } from "./evidence.js";
import { geneLinks, linked } from "./links.js";
import { markedText } from "./marks.js";

const TITLES = { experimental: "The experiment", go_rouge: "Gene Ontology", claims: "Claims", format: "Form" };
const KNOWLEDGE = ["go_rouge", "claims"];

// The experiment, beliefs, knowledge, whatever else there is, the form.
function rank(part) {
  if (part.verifier === "experimental") return 0;
  if (part.verifier === "format") return 4;
  if (KNOWLEDGE.includes(part.verifier)) return 2;
  return part.belief === null ? 3 : 1;
}

export function card(reward, completion, weights) {
  const [kind, task] = reward.task ? Object.entries(reward.task)[0] : ["", null];
  const read = task ? `${kind.replaceAll("_", " ")}: ${Object.values(task).flat().join(" · ")}` : "no question of a known form";
  const answer = reward.answer === null ? "none asked for" : reward.answer.replaceAll("_", " ");
  const ranked = reward.parts.map((part, index) => ({ part, index })).sort((one, other) => rank(one.part) - rank(other.part) || one.index - other.index);
  const silent = ranked.filter(({ part }) => part.outcome === "not_applicable");
  const sum = element("p", { class: "reward" });
  const bar = element("div");
  const recipes = element("p", { class: "soft" });
  weights.onChange(() => {
    const composed = weights.reward(reward);
    sum.textContent = composed.reward === null ? "unscorable" : `reward ${number(composed.reward, 3)} of ${Number(composed.highest.toFixed(3))}`;
    bar.replaceChildren(...(composed.reward === null ? [] : [stackedBar(reward.parts, weights)]));
    recipes.textContent = weights.areGiven || composed.reward === null ? "" : `by your weights; by the recipe's ${number(reward.reward, 3)} of ${Number(reward.highest.toFixed(3))}`;
  });
  const genes = task ? Object.entries(task).filter(([name]) => name !== "cell_line").flatMap(([, names]) => names) : [];
  return element(
    "article",
    { class: "card" },
    element("h2", { class: "verdict" }, reward.verdict),
    sum,
    recipes,
    reward.reward === null ? whyUnscorable(reward) : null,
    bar,
    element("p", { class: "read" }, element("span", { class: "soft" }, `${reward.id}, read as `), read, element("br"), element("span", { class: "soft" }, "answer "), answer),
    genes.length ? geneLinks(genes) : null,
    ranked.filter(({ part }) => part.outcome !== "not_applicable").map(({ part, index }) => partSection(part, index, reward, weights)),
    reward.consensus?.outcome === "scored" ? element("section", {}, element("h3", {}, "The beliefs together"), reward.consensus.evidence.map(reason)) : null,
    silent.length ? notApplicable(silent) : null,
    element("h3", {}, "The text, with what was matched"),
    markedText(completion, reward.parts),
  );
}

// What a person can mend, a mistyped gene for instance, comes first, each thing once; then the recipe's account. A fault is
// told by the account, and its address and status below, with the verifier's own lines.
function whyUnscorable({ parts, unscorable_because: because }) {
  const isFault = parts.some((part) => part.outcome === "failed");
  const facts = isFault ? [] : [...new Set(parts.map((part) => part.detail).filter(Boolean))];
  return [...facts.map((fact) => element("p", { class: "warn" }, fact)), element("p", { class: facts.length ? "soft" : "warn" }, because)];
}

// A permanent fact about the question is no fault and no zero: one line, its reasons a click away.
function notApplicable(silent) {
  const names = silent.map(({ part }) => label(part));
  const why = new Map(silent.map(({ part }) => [part.verifier, part.detail || part.reason]));
  return element(
    "details",
    { class: "silent" },
    element("summary", {}, `Not applicable: ${names.join(", ")}`),
    element("ul", { class: "plain" }, [...why].map(([name, detail]) => element("li", {}, element("b", {}, name), " ", linked(detail)))),
  );
}

function stackedBar(parts, weights) {
  const counted = parts.map((part, index) => ({ part, index, gives: weights.contribution(part) })).filter(({ gives }) => gives);
  const most = Math.max(1e-9, counted.reduce((sum, { gives }) => sum + Math.abs(gives), 0));
  const said = counted.map(({ part, gives }) => `${label(part)} ${number(gives)}`).join(", ");
  const bar = drawn("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": `Parts of the reward: ${said || "none above zero"}` });
  let at = 0;
  for (const { index, gives } of counted) {
    const width = (100 * Math.abs(gives)) / most;
    bar.append(drawn("rect", { x: at, y: 0, width, height: 6, "stroke-width": 0.2, class: `fill-${index % 7}` }));
    at += width;
  }
  return bar;
}

function partSection(part, index, { id, task }, weights) {
  const swatch = drawn("svg", { class: "swatch", viewBox: "0 0 8 8", "aria-hidden": "true" }, drawn("rect", { width: 8, height: 8, class: `fill-${index % 7}` }));
  const counted = element("span", { class: "number" });
  weights.onChange(() => {
    const weight = Number(weights.of.get(label(part)).toFixed(3));
    if (part.outcome === "failed") counted.textContent = "no answer: a fault, not a zero";
    else if (part.contribution === null) counted.textContent = part.dropped_because === "missing_in_group" ? "left out: another completion of the group lacks it" : part.dropped_because.replaceAll("_", " ");
    else counted.textContent = `${number(part.value)} × ${weight} = ${number(weights.contribution(part))}`;
  });
  const title = TITLES[part.verifier] && !part.component ? `${TITLES[part.verifier]} ` : "";
  const section = element("section", {}, element("h3", {}, swatch, title, element("span", { class: title ? "soft" : "" }, label(part)), counted));
  if (part.outcome === "failed") {
    section.append(element("p", { class: "bad" }, "failed: ", part.detail || part.reason));
    return section;
  }
  // A verifier of several terms says its reasons once.
  if (part.component) return section;
  if (part.belief !== null && part.verifier !== "experimental") {
    const believed = `belief in ${affirming(task)}`;
    section.append(element("p", {}, `${believed} `, element("meter", { min: 0, max: 1, value: part.belief, "aria-label": believed }), ` ${number(part.belief)}`));
  }
  section.append(...part.evidence.map(reason));
  draw(section, part, task, id);
  return section;
}

function reason(evidence) {
  return element(
    "p",
    {},
    linked(evidence.text),
    evidence.simulated ? element("span", { class: "tag warn" }, "simulated") : null,
    evidence.source ? element("span", { class: "soft" }, " (", linked(evidence.source), ")") : null,
  );
}

// Pictures come after the words: they are asked for beside the answer, and a section without one is complete.
async function draw(section, part, task, whose) {
  if (part.components.percentile !== undefined) {
    const unit = /^NPMI/.test(part.evidence[0]?.text ?? "") ? "NPMI" : "PMI";
    section.append(histogram(await figuresOf(part.verifier), part.components.pmi, part.components.percentile, unit) ?? "");
  } else if (part.verifier === "experimental" && task) {
    await attempt(async () => section.append(await acrossLines(Object.values(task)[0], whose)));
  } else if (part.belief !== null && task) {
    section.append(reliability(await figuresOf(part.verifier), task, part.belief, part.verifier) ?? "");
  }
}
