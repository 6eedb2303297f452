import { askJson, attempt, drawn, element, number, say } from "./common.js";

const CURVES = [["reward", "Mean reward"], ["reward_call/unscorable", "Share of unscorable completions"], ["step_seconds", "Seconds a step"]];
const table = document.getElementById("runs");
const curves = document.getElementById("curves");
let chosen = decodeURIComponent(location.hash.slice(1));

async function refresh() {
  const { runs } = await askJson("v1/runs");
  say(runs.length ? "Choose a run to see its curves; they grow while it trains." : "There are no runs yet.");
  table.hidden = !runs.length;
  const state = JSON.stringify(runs);
  if (table.dataset.state !== state) {
    const focused = document.activeElement?.dataset?.name;
    table.dataset.state = state;
    table.tBodies[0].replaceChildren(...runs.map(row));
    if (focused) table.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  }
  if (chosen && runs.some((run) => run.name === chosen)) await draw();
}

function row(run) {
  const choose = () => { chosen = run.name; history.replaceState(null, "", `#${encodeURIComponent(run.name)}`); attempt(draw); };
  return element(
    "tr",
    {},
    element("td", {}, element("button", { type: "button", class: "quiet", "data-name": run.name, onclick: choose }, run.name)),
    ...[run.recipe, run.preset, run.started_at].map((text) => element("td", {}, text)),
    ...[run.steps.toLocaleString(), number(run.reward, 3), run.unscorable === null ? "–" : `${(100 * run.unscorable).toFixed(1)} %`].map((text) => element("td", { class: "number" }, text)),
  );
}

async function draw() {
  const { metrics } = await askJson(`v1/runs/${encodeURIComponent(chosen)}`);
  curves.replaceChildren(element("h2", {}, chosen), ...CURVES.map(([key, title]) => curve(metrics.map((line) => [line.step, line[key] ?? null]), title)));
}

function curve(points, title) {
  const known = points.filter(([, value]) => value !== null);
  if (!known.length) return element("p", { class: "soft" }, `${title}: no figures yet`);
  const [lowest, highest] = [Math.min(...known.map(([, value]) => value)), Math.max(...known.map(([, value]) => value))];
  const [first, last] = [known[0][0], known[known.length - 1][0]];
  const x = (step) => 50 + (640 * (step - first)) / Math.max(1, last - first);
  const y = (value) => 150 - (130 * (value - lowest)) / (highest - lowest || 1);
  const svg = drawn("svg", { viewBox: "0 0 700 180", role: "img", "aria-label": `${title}: from ${number(known[0][1], 3)} at step ${first} to ${number(known[known.length - 1][1], 3)} at step ${last}` });
  svg.append(drawn("line", { x1: 50, x2: 690, y1: 150, y2: 150, class: "axis" }), drawn("line", { x1: 50, x2: 50, y1: 20, y2: 150, class: "axis" }));
  for (const [text, at] of [[number(highest), 24], [number(lowest), 152]]) svg.append(drawn("text", { x: 44, y: at, "text-anchor": "end" }, text));
  for (const [text, at] of [[first, 50], [last, 690]]) svg.append(drawn("text", { x: at, y: 168, "text-anchor": at > 100 ? "end" : "start" }, String(text)));
  svg.append(drawn("polyline", { class: "curve", points: known.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  return element("figure", {}, element("figcaption", {}, title), svg);
}

for (;;) {
  await attempt(refresh);
  await new Promise((resolve) => setTimeout(resolve, 3000));
}
