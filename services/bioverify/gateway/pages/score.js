// The page with the form: what is asked and answered, and the cards of what came back. Arithmetic of a group: group.js.
import { askJson, attempt, fillRecipes, say } from "./common.js";
import { element, number } from "./elements.js";
import { builder } from "./builder.js";
import { card } from "./card.js";
import { forCode } from "./code.js";
import { groupTable, weightSliders, Weights } from "./group.js";
import { toForm } from "./links.js";

const MOST = 8;
const KEPT = 20;
const HISTORY = "bioverify-history";
const EXAMPLES = [
  {
    name: "Differential expression, reasoned",
    prompt: "Is a knockdown of AARS1 in k562 cells likely to result in differential expression of TRIB3? The answer is either yes or no.",
    completions: [
      "<think>AARS1 does alanyl-tRNA aminoacylation. Without it uncharged tRNA activates GCN2, ATF4 is translated, and TRIB3, a negative regulator of protein kinase B signaling in the cytosol, is a target of ATF4.</think> <answer>yes</answer>",
      "<think>These two genes have nothing to do with each other.</think> <answer>no</answer>",
    ],
  },
  {
    name: "Direction of change",
    prompt: "Is a knockdown of EIF2B4 in k562 cells likely to result decrease or increase of DDIT3? The answer is either decrease or increase.",
    completions: [
      "<think>EIF2B4 is part of the exchange factor for eIF2. Less of it mimics the integrated stress response: ATF4 rises, and with it DDIT3.</think> <answer>increase</answer>",
      "<think>EIF2B4 starts translation, so everything goes down.</think> <answer>decrease</answer>",
    ],
  },
  {
    name: "Co-expression",
    prompt: "Are gene CD3D and gene CD3E likely to be co-expressed together? Give a binary yes/no answer only.",
    completions: [
      "<think>CD3D and CD3E are two chains of the same complex at the T cell receptor.</think> <answer>yes</answer>",
      "<think>CD3D and CD3E are on different cells.</think> <answer>no</answer>",
    ],
  },
];
const field = (id) => document.getElementById(id);
const results = field("results");
const fields = field("completions");
let recipes = [];

field("example").append(...EXAMPLES.map((example, index) => element("option", { value: index }, example.name)));
field("example").addEventListener("change", () => {
  const example = EXAMPLES[field("example").value];
  show({ ...example, completions: example.completions.slice(0, Math.max(1, texts().length)) });
});
field("recipe").addEventListener("change", explainRecipe);
field("add").addEventListener("click", () => {
  const example = EXAMPLES.find((each) => each.prompt === field("prompt").value);
  const next = texts().length;
  addCompletion(example?.completions[next] ?? "");
  fields.lastElementChild.querySelector("textarea").focus();
});
field("share").addEventListener("click", async () => {
  history.replaceState(null, "", toForm(state()));
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is in the clipboard. It holds the texts themselves.");
  } catch {
    say("The link is in the address bar. It holds the texts themselves.");
  }
});
field("score-form").addEventListener("submit", (event) => {
  event.preventDefault();
  score();
});
field("score-form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    field("score-form").requestSubmit();
  }
});

const texts = () => [...fields.querySelectorAll("textarea")].map((each) => each.value);
const state = () => ({ prompt: field("prompt").value, completions: texts(), recipe: field("recipe").value });

function addCompletion(text) {
  const remove = () => {
    box.remove();
    numberThem();
    field("add").focus();
  };
  const box = element(
    "div",
    { class: "completion" },
    element("label", {}, ""),
    element("textarea", { rows: 7, required: true }),
    element("button", { type: "button", class: "quiet", onclick: remove }, "Remove it"),
  );
  box.querySelector("textarea").value = text;
  fields.append(box);
  numberThem();
}

function numberThem() {
  [...fields.children].forEach((box, index) => {
    const [label, area, remove] = box.children;
    area.id = `completion-${index + 1}`;
    label.setAttribute("for", area.id);
    label.textContent = index ? `Completion ${index + 1}` : "Completion";
    remove.hidden = fields.children.length === 1;
    remove.setAttribute("aria-label", `Remove completion ${index + 1}`);
  });
  field("add").disabled = fields.children.length >= MOST;
}

function show(wanted) {
  field("prompt").value = wanted.prompt;
  fields.replaceChildren();
  for (const text of wanted.completions.slice(0, MOST)) addCompletion(text);
  results.replaceChildren(element("p", { class: "empty soft" }, "Nothing is scored yet. Choose an example or put in your own, then press Score, or Ctrl+Enter."));
}

async function score() {
  const button = field("score-form").querySelector("[type=submit]");
  if (button.disabled) return;
  const asked = state();
  // Completions of one question are a group, as GRPO compares them: a term missing for one is dropped for all.
  const group = asked.completions.length > 1 ? { group_id: "group" } : {};
  const items = asked.completions.map((completion, index) => ({ id: `completion ${index + 1}`, prompt: asked.prompt, completion, ...group }));
  const request = { items, recipe: asked.recipe };
  say("Asking the verifiers…");
  button.disabled = true;
  results.setAttribute("aria-busy", "true");
  try {
    await attempt(async () => {
      const started = performance.now();
      const reply = await askJson("v1/score", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request) });
      showReply(request, reply);
      say(`Answered in ${Math.round(performance.now() - started)} ms. ${reply.rewards[0].verdict}`);
      remember(asked, reply);
    });
  } finally {
    button.disabled = false;
    results.removeAttribute("aria-busy");
  }
}

function showReply(request, reply) {
  const weights = new Weights(reply.rewards);
  const cards = reply.rewards.map((reward, index) => card(reward, request.items[index].completion, weights));
  results.replaceChildren(
    ...(reply.rewards.length > 1 ? [groupTable(reply.rewards, weights)] : []),
    element("div", { class: reply.rewards.length > 1 ? "columns" : "" }, cards),
    weightSliders(weights),
    forCode(request, reply),
  );
  weights.changed();
  // On a narrow window the form is above: whoever pressed Score wants to see the verdict.
  if (results.getBoundingClientRect().top > window.innerHeight / 2) results.scrollIntoView();
}

// Storage of this tab alone; a browser that refuses it, or is full, leaves the list as it was.
function remembered() {
  return JSON.parse(sessionStorage.getItem(HISTORY) ?? "[]");
}

function remember(asked, reply) {
  const [first] = reply.rewards;
  const entry = { ...asked, at: Date.now(), said: `${first.reward === null ? "unscorable" : number(first.reward)}: ${first.verdict}` };
  try {
    sessionStorage.setItem(HISTORY, JSON.stringify([entry, ...remembered()].slice(0, KEPT)));
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
  }
  listHistory();
}

function listHistory() {
  const entries = remembered();
  field("history").hidden = !entries.length;
  field("history").querySelector("ul").replaceChildren(
    ...entries.map((entry) => {
      const back = () => {
        show(entry);
        field("recipe").value = entry.recipe;
        explainRecipe();
        score();
      };
      const title = entry.prompt.length > 80 ? `${entry.prompt.slice(0, 80)}…` : entry.prompt;
      return element("li", {}, element("button", { type: "button", class: "quiet", onclick: back }, new Date(entry.at).toLocaleTimeString()), " ", title, element("div", { class: "soft" }, entry.said));
    }),
  );
}

const most = (terms) => terms.reduce((sum, term) => sum + Math.max(0, term.weight), 0);

function explainRecipe() {
  const recipe = recipes.find((each) => each.name === field("recipe").value);
  if (!recipe) return;
  const highest = recipe.sources.length ? recipe.sources.map((source) => [source.task_kind.replaceAll("_", " "), most([...recipe.terms, ...source.terms])]) : [["", most(recipe.terms)]];
  const said = new Set(highest.map(([kind, at]) => `${Number(at.toFixed(3))}${kind ? ` for ${kind}` : ""}`));
  field("rewards-what").textContent = `${recipe.description} At most ${[...said].join(", ")}.`;
}

// A link holds the texts; those of before the group hold two completions under names of their own.
function fromLink(hash) {
  try {
    const bytes = Uint8Array.from(atob(decodeURIComponent(hash)), (character) => character.charCodeAt(0));
    const held = JSON.parse(new TextDecoder().decode(bytes));
    const completions = held.completions ?? [held.a, ...(held.compared ? [held.b] : [])];
    if (typeof held.prompt !== "string" || !completions.length || completions.some((text) => typeof text !== "string")) throw new TypeError("no texts");
    return { ...held, completions };
  } catch {
    say("The link is cut short: it holds no text that can be read.", "bad");
    return null;
  }
}

const shared = location.hash.length > 1 ? fromLink(location.hash.slice(1)) : null;
show(shared ?? { ...EXAMPLES[0], completions: EXAMPLES[0].completions.slice(0, 1) });
builder();
listHistory();
await attempt(async () => {
  recipes = await fillRecipes(field("recipe"), shared?.recipe ?? "all");
  explainRecipe();
});
