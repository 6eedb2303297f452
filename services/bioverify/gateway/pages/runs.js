import { askJson, attempt, element, number, say } from "./common.js";
import { curve } from "./curves.js";

const FIRST = [["reward", "Mean reward"], ["reward_call/unscorable", "Share of unscorable completions"], ["step_seconds", "Seconds a step"]];
const GROUPS = [["value/", "Verifiers: mean value of "], ["heldout_before/", "Held-out questions: "], ["watch/", "Watched: "]];
const table = document.getElementById("runs");
const curves = document.getElementById("curves");
const beside = document.getElementById("beside");
const smoothing = document.getElementById("smoothing");
let chosen = decodeURIComponent(location.hash.slice(1));
let drawn = "";

beside.addEventListener("change", () => attempt(draw));
smoothing.addEventListener("input", () => attempt(draw));

async function refresh() {
  const { runs } = await askJson("v1/runs");
  say(runs.length ? "Choose a run to see its curves; they grow while it trains." : "There are no runs here yet. Start one with bioverify-train, or name the folder that holds them: bioverify up --runs FOLDER.");
  table.hidden = !runs.length;
  const state = JSON.stringify(runs);
  if (table.dataset.state !== state) {
    const focused = document.activeElement?.dataset?.name;
    table.dataset.state = state;
    table.tBodies[0].replaceChildren(...runs.map(row));
    if (focused) table.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  }
  const others = ["", ...runs.map((run) => run.name).filter((name) => name !== chosen)];
  if (JSON.stringify(others) !== beside.dataset.state) {
    const kept = beside.value;
    beside.dataset.state = JSON.stringify(others);
    beside.replaceChildren(...others.map((name) => element("option", { value: name }, name || "none")));
    beside.value = others.includes(kept) ? kept : "";
  }
  if (chosen && runs.some((run) => run.name === chosen)) await draw();
}

function row(run) {
  const choose = () => {
    chosen = run.name;
    history.replaceState(null, "", `#${encodeURIComponent(run.name)}`);
    attempt(refresh);
  };
  return element(
    "tr",
    {},
    element("td", {}, element("button", { type: "button", class: "quiet", "data-name": run.name, onclick: choose }, run.name)),
    ...[run.recipe, run.preset, run.started_at].map((text) => element("td", {}, text)),
    ...[run.steps.toLocaleString(), number(run.reward, 3), run.unscorable === null ? "–" : `${(100 * run.unscorable).toFixed(1)} %`].map((text) => element("td", { class: "number" }, text)),
  );
}

async function draw() {
  const names = [chosen, ...(beside.value && beside.value !== chosen ? [beside.value] : [])];
  const asked = [names, smoothing.value];
  const records = await Promise.all(names.map((name) => askJson(`v1/runs/${encodeURIComponent(name)}`)));
  // A person may have a pointer or the keyboard on a curve: they are made again only if something has changed.
  const state = JSON.stringify([asked, records.map(({ metrics }) => [metrics.length, metrics.at(-1)])]);
  if (state === drawn) return;
  drawn = state;
  const keys = [...new Set(records.flatMap(({ metrics }) => metrics.flatMap((line) => Object.keys(line))))].sort();
  const more = GROUPS.flatMap(([prefix, title]) => keys.filter((key) => key.startsWith(prefix)).map((key) => [key, title + key.slice(prefix.length)]));
  const figure = ([key, title]) => curve(title, names.map((name, index) => ({ name, points: records[index].metrics.map((line) => [line.step, line[key] ?? null]) })), Number(smoothing.value));
  document.getElementById("controls").hidden = false;
  curves.replaceChildren(element("h2", {}, names.join(" and ")), element("div", { class: "columns" }, [...FIRST, ...more].map(figure)));
}

for (;;) {
  await attempt(refresh);
  await new Promise((resolve) => setTimeout(resolve, 3000));
}
