// Training runs as their folders tell of them while they train; started and stopped if a training service is there.
import { askJson, attempt, fillRecipes, say } from "./common.js";
import { element, number } from "./elements.js";
import { figuresOf } from "./curves.js";
import { sampleCard } from "./samples.js";

const field = (id) => document.getElementById(id);
const table = field("runs");
const beside = field("beside");
let chosen = decodeURIComponent(location.hash.slice(1));
let drawn = "";
let steps = [];
// A step that a person has gone to stays; before that the latest one is shown.
let follows = true;

beside.addEventListener("change", () => attempt(draw));
field("smoothing").addEventListener("input", () => attempt(draw));
field("step").addEventListener("input", () => {
  follows = Number(field("step").value) === steps.length - 1;
  attempt(showSamples);
});
field("start-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const changes = field("start-changes").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const body = { name: field("start-name").value.trim(), recipe: field("start-recipe").value, preset: field("start-preset").value.trim(), changes };
    const run = await askJson("v1/runs", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    field("start").open = false;
    choose(run.name);
    await refresh();
    say(`${run.name} is ${run.state}.`);
  });
});

function choose(name) {
  [chosen, follows] = [name, true];
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
}

async function refresh() {
  const { runs, starts_runs: startsRuns, fault } = await askJson("v1/runs");
  if (fault) say(fault, "bad");
  else if (!runs.length) say(`There are no runs here yet. ${startsRuns ? "Start one below." : "Start one with bioverify train, or name the folder that holds them: bioverify up --runs FOLDER."}`);
  else if (!chosen) say("Choose a run to see its curves; they grow while it trains.");
  else if (field("said").className === "bad" || field("said").textContent === "Looking…") say("");
  if (startsRuns && field("start").hidden) {
    field("start").hidden = false;
    await fillRecipes(field("start-recipe"), "rbio1-exp");
  }
  table.hidden = !runs.length;
  const state = JSON.stringify([runs, chosen]);
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
  // A run that was started a moment ago is listed before its folder tells of it.
  if (chosen && runs.some((run) => run.name === chosen && (!run.state || run.reward !== null || run.steps))) await draw();
}

const UNDER_WAY = ["pending", "running"];
const MAY_GO_ON = ["stopped", "failed"];

function timeOf(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString();
}

function row(run) {
  const show = () => {
    choose(run.name);
    attempt(refresh);
  };
  const action = (name, verb) =>
    element("button", { type: "button", class: "quiet", "data-name": `${verb} ${run.name}`, "aria-label": `${name} ${run.name}`, onclick: () => attempt(async () => { await askJson(`v1/runs/${encodeURIComponent(run.name)}:${verb}`, { method: "POST" }); await refresh(); }) }, name);
  return element(
    "tr",
    { class: run.name === chosen ? "asked" : "" },
    element("th", { scope: "row" }, element("button", { type: "button", class: "link", "data-name": run.name, "aria-pressed": String(run.name === chosen), onclick: show }, run.name)),
    ...[run.recipe, run.preset, timeOf(run.started_at)].map((text) => element("td", {}, text)),
    element("td", { class: run.state === "failed" ? "bad" : "" }, run.state || "–"),
    ...[run.steps.toLocaleString(), number(run.reward, 3), run.unscorable === null ? "–" : `${(100 * run.unscorable).toFixed(1)} %`].map((text) => element("td", { class: "number" }, text)),
    element("td", {}, UNDER_WAY.includes(run.state) ? action("Stop", "stop") : MAY_GO_ON.includes(run.state) ? action("Resume", "resume") : "–"),
  );
}

async function draw() {
  const names = [chosen, ...(beside.value && beside.value !== chosen ? [beside.value] : [])];
  const asked = [names, field("smoothing").value];
  const records = await Promise.all(names.map((name) => askJson(`v1/runs/${encodeURIComponent(name)}`)));
  // A person may have a pointer or the keyboard on a curve: they are made again only if something has changed.
  const state = JSON.stringify([asked, records.map(({ metrics }) => [metrics.length, metrics.at(-1)])]);
  if (state === drawn) return;
  drawn = state;
  field("controls").hidden = false;
  const opened = [...field("alarms").querySelectorAll("details")].map((each) => each.open);
  field("alarms").replaceChildren(...records.flatMap(({ alarms }, index) => alarms.map((alarm) => alarmOf(alarm, names.length > 1 ? `Look closer at ${names[index]}. ` : "Look closer. "))));
  field("alarms").querySelectorAll("details").forEach((each, index) => { each.open = opened[index] ?? false; });
  const [focused, open] = [field("curves").contains(document.activeElement) ? document.activeElement.dataset.name : null, [...field("curves").querySelectorAll("details[open] > summary")].map((each) => each.textContent)];
  field("curves").replaceChildren(element("h2", {}, names.join(" and ")), figuresOf(names.map((name, index) => ({ name, metrics: records[index].metrics })), Number(field("smoothing").value)));
  // A run that trains changes at every step: who reads a curve stays on it, and what is open stays open.
  for (const summary of field("curves").querySelectorAll("summary")) summary.parentElement.open = open.includes(summary.textContent);
  if (focused) field("curves").querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  if (follows) await showSamples();
}

// What was seen, first; what to do about it may be long, and curves are what a reader comes for.
function alarmOf(alarm, title) {
  const [, seen, remedy] = alarm.match(/^(.*?[.])\s+(\S.*)$/s) ?? [null, alarm, ""];
  const said = [element("b", {}, title), seen];
  return remedy ? element("details", { class: "alarm" }, element("summary", {}, said), element("p", {}, remedy)) : element("p", { class: "alarm" }, said);
}

async function showSamples() {
  const run = chosen;
  const wanted = follows ? "" : `?step=${steps[field("step").value]}`;
  const found = await askJson(`v1/runs/${encodeURIComponent(run)}/samples${wanted}`);
  if (run !== chosen) return;
  steps = found.steps;
  field("samples").hidden = !steps.length;
  field("step").max = Math.max(0, steps.length - 1);
  if (follows) field("step").value = steps.length - 1;
  if (!steps.length) return;
  const step = found.samples[0].step;
  field("step").setAttribute("aria-valuetext", `step ${step}`);
  field("step-said").textContent = `${step}, of ${steps.length.toLocaleString()} steps that kept completions`;
  field("step-completions").replaceChildren(...found.samples.map(sampleCard));
}

for (;;) {
  await attempt(refresh);
  await new Promise((resolve) => setTimeout(resolve, 3000));
}
