// A figure over the steps of one or two runs: grid, smoothing, and its numbers by pointer and by arrow keys.
import { drawn, element, number } from "./elements.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [56, 690, 14, 190];
const LINES = 4;

const FIRST = [["reward", "Mean reward"], ["reward_call/unscorable", "Share of unscorable completions"], ["step_seconds", "Seconds a step"]];
// TRL's names of what says whether a step teaches, and whether it teaches what was sampled.
const TEACHES = [["frac_reward_zero_std", "Share of groups rewarded all alike"], ["clip_ratio/region_mean", "Share of tokens that the loss clips"], ["kl", "KL divergence from the start"], ["entropy", "Entropy of the next token"], ["sampling/importance_sampling_ratio/mean", "Probability at the trainer ÷ at vLLM"]];
const HELD_OUT = "heldout/";
// What was asked before the first step belongs to the curve of what was asked after later ones.
const BEFORE = "heldout_before/";
const GROUPS = [
  [HELD_OUT, "Held-out questions: ", "greedy answers to the same questions, half of them positive, which nothing rewards"],
  ["value/", "Mean value of ", "what a verifier said, from 0 to 1, over the completions that it could score"],
  ["contribution/", "Mean contribution of ", "weight × value of a term; the contributions add up to the reward"],
  ["source/", "Mean reward of questions from ", "over the completions of one source of questions, which terms of its own may score"],
  ["watch/", "Watched: ", "signs of reward hacking: repetition within a completion, answers “yes”, answers that cannot be read, thoughts that name the genes and say nothing else, distance between verifiers’ beliefs"],
  ["not_read/", "Share not read: ", "completions of which the question, a thought or the answer could not be read, by reason: docs/reading.md"],
  ["pace/", "Pace: ", "shares of a step’s seconds, tokens per second, and the share of the accelerator’s arithmetic that is used (mfu); rewards should be below 5 %, for while they are waited for nothing is computed"],
  ["verifier/", "Verifier ", "seconds until its last reply, and shares of the distinct questions that the cache answered, that did not apply, that failed"],
];

// Step that a person reads a figure at, by its title: a run that trains draws its figures again at every step.
const readAt = new Map();

// All figures of one run, or of two: those that every run has, and those that it recorded.
export function figuresOf(runs, factor) {
  const all = [...new Set(runs.flatMap(({ metrics }) => metrics.flatMap((line) => Object.keys(line))).map((key) => key.replace(BEFORE, HELD_OUT)))].sort();
  // A reason that was never met is no figure.
  const keys = all.filter((key) => !key.startsWith("not_read/") || runs.some(({ metrics }) => metrics.some((line) => line[key])));
  const points = (metrics, key) =>
    metrics.flatMap((line) => {
      const before = key.startsWith(HELD_OUT) ? line[key.replace(HELD_OUT, BEFORE)] ?? null : null;
      return [...(before === null ? [] : [[line.step - 1, before]]), [line.step, line[key] ?? null]];
    });
  const found = GROUPS.map(([prefix, title]) => keys.filter((key) => key.startsWith(prefix)).map((key) => [key, title + key.slice(prefix.length)]));
  const figure = ([key, title]) => curve(title, runs.map(({ name, metrics }) => ({ name, points: points(metrics, key) })), factor);
  // How the verifiers' services fared is for whoever runs them: there, and closed.
  const services = found.pop();
  const meanings = GROUPS.filter(([prefix]) => keys.some((key) => key.startsWith(prefix)));
  return element("div", {}, element("div", { class: "columns" }, [FIRST[0], ...found[0], ...FIRST.slice(1), ...TEACHES.filter(([key]) => keys.includes(key)), ...found.slice(1).flat()].map(figure)), meanings.length ? element("details", {}, element("summary", {}, "What the figures mean"), element("ul", { class: "plain" }, meanings.map(([, title, meaning]) => element("li", {}, element("b", {}, title.trim().replace(/:$| of$| from$/, "")), `: ${meaning}.`)))) : null, services.length ? folded(`How the verifiers fared: ${services.length} figures`, () => services.map(figure)) : null);
}

function folded(title, make) {
  const inner = element("div", { class: "columns" });
  const opened = () => inner.childElementCount || inner.append(...make());
  return element("details", { ontoggle: opened }, element("summary", {}, title), inner);
}

// Exponential moving average without the pull to zero of its first steps, as dashboards of training have it.
export function smoothed(values, factor) {
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    [sum, weight] = [sum * factor + value, weight * factor + 1];
    return sum / weight;
  });
}

export function curve(title, runs, factor) {
  const known = runs.map(({ name, points }) => ({ name, points: points.filter(([, value]) => value !== null) })).filter(({ points }) => points.length);
  if (!known.length) return element("p", { class: "soft" }, `${title}: no figures yet`);
  const all = known.flatMap(({ points }) => points);
  const [first, last] = [Math.min(...all.map(([step]) => step)), Math.max(...all.map(([step]) => step))];
  const [lowest, highest] = [Math.min(...all.map(([, value]) => value)), Math.max(...all.map(([, value]) => value))];
  const x = (step) => LEFT + ((RIGHT - LEFT) * (step - first)) / Math.max(1, last - first);
  const y = (value) => BOTTOM - ((BOTTOM - TOP) * (value - lowest)) / (highest - lowest || 1);
  const told = known.map(({ name, points }) => `${known.length > 1 ? `${name} ` : ""}from ${number(points[0][1], 3)} at step ${points[0][0]} to ${number(points.at(-1)[1], 3)} at step ${points.at(-1)[0]}`);
  const svg = drawn("svg", { viewBox: "0 0 700 214", role: "img", tabindex: 0, "data-name": title, "aria-label": `${title}: ${told.join("; ")}` });
  for (let line = 0; line <= LINES; line += 1) {
    const value = lowest + ((highest - lowest) * line) / LINES;
    svg.append(drawn("line", { x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value), class: line ? "grid" : "axis" }));
    if (line === 0 || highest > lowest) svg.append(drawn("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  for (const [step, anchor] of [[first, "start"], [last, "end"]]) svg.append(drawn("text", { x: x(step), y: 208, "text-anchor": anchor }, `step ${step}`));
  const path = (points) => points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  known.forEach(({ points }, index) => {
    if (factor) svg.append(drawn("polyline", { class: `curve line-${index} faint`, points: path(points) }));
    const values = smoothed(points.map(([, value]) => value), factor);
    svg.append(drawn("polyline", { class: `curve line-${index}`, points: path(points.map(([step], at) => [step, values[at]])) }));
  });
  const cursor = drawn("line", { x1: 0, x2: 0, y1: TOP, y2: BOTTOM, class: "marker", visibility: "hidden" });
  svg.append(cursor);
  const says = element("span", { class: "soft" });
  const legend = known.length > 1 ? known.map(({ name }, index) => element("span", { class: `legend line-${index}` }, `${index ? "╌" : "━"} ${name} `)) : [];
  const steps = [...new Set(all.map(([step]) => step))].sort((one, other) => one - other);
  let at = steps.length - 1;
  const tell = (index) => {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    const step = steps[at];
    readAt.set(title, step);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
    cursor.setAttribute("visibility", "visible");
    const values = known.map(({ name, points }) => `${known.length > 1 ? `${name} ` : ""}${number(points.find(([each]) => each === step)?.[1], 4)}`);
    says.textContent = ` step ${step}: ${values.join("; ")}`;
  };
  if (steps.includes(readAt.get(title))) tell(steps.indexOf(readAt.get(title)));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const wanted = first + (((event.clientX - box.left) * 700) / box.width - LEFT) * (Math.max(1, last - first) / (RIGHT - LEFT));
    tell(steps.reduce((best, step, index) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? index : best), 0));
  });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: steps.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    tell(moves[event.key]);
  });
  return element("figure", { class: "run" }, element("figcaption", {}, element("b", {}, title), " ", legend, says), svg);
}
