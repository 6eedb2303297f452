import { askJson, attempt, drawn, element, fillRecipes, label, number, say } from "./common.js";
import { acrossLines, figuresOf, histogram, reliability } from "./evidence.js";
import { marked, matchedTerms } from "./marks.js";

const EXAMPLES = [
  {
    name: "Differential expression, reasoned",
    prompt: "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of TRIB3? The answer is either yes or no.",
    a: "<think>AARS1 does alanyl-tRNA aminoacylation. Without it uncharged tRNA activates GCN2, ATF4 is translated, and TRIB3, a negative regulator of protein kinase B signaling in the cytosol, is a target of ATF4.</think> <answer>yes</answer>",
    b: "<think>These two genes have nothing to do with each other.</think> <answer>no</answer>",
  },
  {
    name: "Direction of change",
    prompt: "Is a knockdown of EIF2B4 in k562 cells likely to result decrease or increase of DDIT3? The answer is either decrease or increase.",
    a: "<think>EIF2B4 is part of the exchange factor for eIF2. Less of it mimics the integrated stress response: ATF4 rises, and with it DDIT3.</think> <answer>increase</answer>",
    b: "<think>EIF2B4 starts translation, so everything goes down.</think> <answer>decrease</answer>",
  },
  {
    name: "Co-expression",
    prompt: "Are gene CD3D and gene CD3E likely to be co-expressed together? Give a binary yes/no answer only.",
    a: "<think>CD3D and CD3E are two chains of the same complex at the T cell receptor.</think> <answer>yes</answer>",
    b: "<think>CD3D and CD3E are on different cells.</think> <answer>no</answer>",
  },
];
const field = (id) => document.getElementById(id);
const results = field("results");

field("example").append(...EXAMPLES.map((example, index) => element("option", { value: index }, example.name)));
field("example").addEventListener("change", () => show({ ...EXAMPLES[field("example").value], compared: comparing() }));
field("compare").addEventListener("click", () => compare(!comparing()));
field("share").addEventListener("click", async () => {
  const state = { prompt: field("prompt").value, a: field("completion-a").value, b: field("completion-b").value, compared: comparing(), recipe: field("recipe").value };
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const packed = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  history.replaceState(null, "", `#${encodeURIComponent(packed)}`);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is in the clipboard. It holds the texts themselves.");
  } catch {
    say("The link is in the address bar. It holds the texts themselves.");
  }
});
field("score-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(score);
});

const comparing = () => !field("second").hidden;

function compare(on) {
  field("second").hidden = !on;
  field("compare").setAttribute("aria-expanded", on);
  field("compare").textContent = on ? "Leave the second one out" : "Compare with a second one";
}

function show(state) {
  field("prompt").value = state.prompt;
  field("completion-a").value = state.a;
  field("completion-b").value = state.b;
  compare(Boolean(state.compared));
  results.replaceChildren();
}

async function score() {
  const completions = [field("completion-a").value, ...(comparing() ? [field("completion-b").value] : [])];
  const prompt = field("prompt").value;
  // Each is its own group: here they are compared by the reader, and a term missing for one says nothing of the other.
  const items = completions.map((completion, index) => ({ id: index ? "second" : "first", prompt, completion }));
  say("Asking the verifiers…");
  const started = performance.now();
  const reply = await askJson("v1/score", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ items, recipe: field("recipe").value }),
  });
  say(`Answered in ${Math.round(performance.now() - started)} ms.`);
  const most = Math.max(1e-9, ...reply.rewards.map((reward) => reward.parts.reduce((sum, part) => sum + Math.abs(part.contribution ?? 0), 0)));
  results.replaceChildren(element("div", { class: "columns" }, reply.rewards.map((reward, index) => card(reward, completions[index], most))));
}

function card(reward, completion, most) {
  const [kind, task] = reward.task ? Object.entries(reward.task)[0] : ["", null];
  const read = task ? `${kind.replaceAll("_", " ")}: ${Object.values(task).flat().join(" · ")}` : "no question of a known form";
  const answer = reward.answer === null ? "none asked for" : reward.answer.replaceAll("_", " ");
  return element(
    "article",
    { class: "card" },
    element("h2", {}, reward.id === "first" ? "Completion" : "Second completion"),
    element("p", { class: "verdict" }, reward.verdict),
    element("p", { class: "reward" }, reward.reward === null ? "unscorable" : `reward ${number(reward.reward, 3)} of ${Number(reward.highest.toFixed(3))}`),
    reward.reward === null ? element("p", { class: "warn" }, reward.unscorable_because) : stackedBar(reward.parts, most),
    element("p", {}, element("span", { class: "soft" }, "read as "), read, element("br"), element("span", { class: "soft" }, "answer "), answer),
    reward.parts.map((part, index) => partSection(part, index, reward)),
    reward.consensus ? consensusSection(reward.consensus) : null,
    element("h3", {}, "The text, with matched terms marked"),
    element("p", { class: "said" }, marked(completion, matchedTerms(reward.parts))),
  );
}

function stackedBar(parts, most) {
  const counted = parts.map((part, index) => ({ part, index })).filter(({ part }) => part.contribution);
  const said = counted.map(({ part }) => `${label(part)} ${number(part.contribution)}`).join(", ");
  const bar = drawn("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": `Parts of the reward: ${said}` });
  let at = 0;
  for (const { part, index } of counted) {
    const width = (100 * Math.abs(part.contribution)) / most;
    bar.append(drawn("rect", { x: at, y: 0, width, height: 6, "stroke-width": 0.2, class: `fill-${index % 7}` }));
    at += width;
  }
  return bar;
}

function partSection(part, index, { id, task }) {
  const swatch = drawn("svg", { class: "swatch", viewBox: "0 0 8 8", "aria-hidden": "true" }, drawn("rect", { width: 8, height: 8, class: `fill-${index % 7}` }));
  const counted = part.contribution === null ? part.dropped_because.replaceAll("_", " ") : `${number(part.value)} × ${part.weight} = ${number(part.contribution)}`;
  const section = element("section", {}, element("h3", {}, swatch, `${label(part)}: `, element("span", { class: "number" }, counted)));
  if (part.outcome === "scored") {
    // A verifier of several terms says its reasons once.
    if (!part.component) section.append(...part.evidence.map(reason));
    if (part.belief !== null && !part.component)
      section.append(element("p", { class: "soft" }, "belief in yes ", element("meter", { min: 0, max: 1, value: part.belief, "aria-label": "belief in yes" }), ` ${number(part.belief)}`));
    if (!part.component) draw(section, part, task, `${id} completion`);
  } else {
    const kind = part.outcome === "failed" ? "bad" : "soft";
    section.append(element("p", { class: kind }, part.outcome === "failed" ? "failed: " : "not applicable: ", part.detail || part.reason));
  }
  return section;
}

function consensusSection(consensus) {
  const said = consensus.outcome === "scored" ? consensus.evidence.map(reason) : [element("p", { class: "soft" }, consensus.detail)];
  return element("section", {}, element("h3", {}, "The beliefs together"), ...said);
}

function reason(evidence) {
  return element(
    "p",
    {},
    evidence.text,
    evidence.simulated ? element("span", { class: "tag warn" }, "simulated") : null,
    evidence.source ? element("span", { class: "soft" }, ` (${evidence.source})`) : null,
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

let shared = null;
if (location.hash.length > 1) {
  try {
    const bytes = Uint8Array.from(atob(decodeURIComponent(location.hash.slice(1))), (character) => character.charCodeAt(0));
    shared = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    say("The link is cut short: it holds no text that can be read.", "bad");
  }
}
show(shared ?? EXAMPLES[0]);
await attempt(() => fillRecipes(field("recipe"), shared?.recipe ?? "all"));
