// Evidence that is better seen than read: the pair in every cell line, a value among all others, a belief's reliability.
import { askJson } from "./common.js";
import { drawn, element, number } from "./elements.js";

const LINES = ["k562", "rpe1", "hepg2", "jurkat"];
const KINDS = ["differential_expression", "direction_of_change"];
const BINS = 28;
let known;

// The word for "it is so" in the question's own terms: a knockdown increases a gene, or the answer is yes.
export const affirming = (task) => (task?.direction_of_change ? "increase" : "yes");

// What each verifier's artifacts say of themselves; asked once for the page.
export async function figuresOf(verifier) {
  known ??= askJson("v1/verifiers").then(({ verifiers }) => new Map(verifiers.map((each) => [each.name, Object.assign({}, ...each.artifacts.map((artifact) => artifact.figures))])));
  try {
    return (await known).get(verifier) ?? {};
  } catch {
    known = undefined;
    return {};
  }
}

// The same pair of genes in all cell lines, as a table of what the screen measured there.
export async function acrossLines({ perturbation, measured_gene, cell_line }, whose) {
  const asked = LINES.flatMap((line) => KINDS.map((kind) => ({ line, kind })));
  const items = asked.map(({ line, kind }, index) => ({
    id: String(index),
    completion: `<answer>${kind === KINDS[0] ? "yes" : "increase"}</answer>`,
    task: { [kind]: { perturbation, measured_gene, cell_line: line } },
  }));
  const { rewards } = await askJson("v1/verifiers/experimental:score", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ items }) });
  const said = new Map(asked.map(({ line, kind }, index) => [`${line} ${kind}`, rewards[index].parts[0]]));
  const rows = LINES.map((line) => {
    const [responds, direction] = KINDS.map((kind) => said.get(`${line} ${kind}`));
    const measured = responds?.outcome === "scored";
    const simulated = measured && responds.evidence.some((each) => each.simulated);
    return element(
      "tr",
      { class: line === cell_line.toLowerCase() ? "asked" : "" },
      element("th", { scope: "row" }, line.toUpperCase(), line === cell_line.toLowerCase() ? element("span", { class: "soft" }, " asked about") : null),
      element("td", {}, measured ? verdict(responds.belief, "responds", "no response") : element("span", { class: "soft" }, responds?.outcome === "failed" ? "failed" : "not measured")),
      element("td", {}, direction?.outcome === "scored" ? verdict(direction.belief, "up", "down") : element("span", { class: "soft" }, "–")),
      element("td", { class: "soft" }, measured ? responds.evidence[0]?.source ?? "" : "", simulated ? element("span", { class: "tag warn" }, "simulated") : null),
    );
  });
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `${perturbation} and ${measured_gene} across cell lines, ${whose}` },
    element("table", { class: "lines" }, element("thead", {}, element("tr", {}, ["cell line", measured_gene, "direction", "source"].map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, rows)),
  );
}

const verdict = (belief, yes, no) => (belief >= 0.5 ? element("span", { class: "good" }, `● ${yes}`) : element("span", {}, `○ ${no}`));

// All pairs as a histogram, made of the percentiles that the artifact keeps, and where this pair stands.
export function histogram(figures, value, percentile, unit) {
  const quantiles = Object.entries(figures)
    .filter(([name]) => name.startsWith("pmi_at_percentile_"))
    .map(([name, at]) => [Number(name.slice("pmi_at_percentile_".length)) / 100, at])
    .sort(([one], [other]) => one - other);
  if (quantiles.length < 3) return null;
  const [lowest, highest] = [Math.min(quantiles[0][1], value), Math.max(quantiles[quantiles.length - 1][1], value)];
  const below = (at) => {
    const above = quantiles.findIndex(([, known]) => known > at);
    if (above === 0) return 0;
    if (above < 0) return 1;
    const [[p, from], [q, to]] = [quantiles[above - 1], quantiles[above]];
    return p + ((q - p) * (at - from)) / (to - from || 1);
  };
  const edge = (index) => lowest + ((highest - lowest) * index) / BINS;
  const shares = Array.from({ length: BINS }, (_, index) => below(edge(index + 1)) - below(edge(index)));
  // The root keeps the thin tail, where the interesting pairs are, above the line.
  const tallest = Math.sqrt(Math.max(...shares));
  const x = (at) => 12 + (376 * (at - lowest)) / (highest - lowest || 1);
  const svg = drawn("svg", { class: "chart", viewBox: "0 0 400 118", role: "img", "aria-label": `Histogram of all gene pairs; this pair, ${number(value)} ${unit}, is above ${number(percentile, 1)} % of them` });
  shares.forEach((share, index) => {
    const height = share > 0 ? Math.max(1, (72 * Math.sqrt(share)) / tallest) : 0;
    const holds = value >= edge(index) && (value < edge(index + 1) || index === BINS - 1);
    svg.append(drawn("rect", { x: x(edge(index)) + 0.5, y: 92 - height, width: 376 / BINS - 1, height, class: holds ? "here" : "others" }));
  });
  svg.append(drawn("line", { x1: 12, x2: 388, y1: 92, y2: 92, class: "axis" }), drawn("line", { x1: x(value), x2: x(value), y1: 18, y2: 92, class: "marker" }));
  svg.append(text(Math.min(Math.max(x(value), 60), 340), 13, `this pair ${number(value)}`, "middle", "strong"));
  for (const [at, anchor] of [[lowest, "start"], [highest, "end"]]) svg.append(text(x(at), 108, number(at), anchor));
  svg.append(text(200, 108, `${unit} of all pairs, height by root`, "middle"));
  return element("figure", {}, svg, element("figcaption", { class: "soft" }, `higher than ${number(percentile, 1)} % of the gene pairs`));
}

// How often the affirming answer was right where the net believed as much, out of fold; and the belief at hand.
export function reliability(figures, task, belief, verifier) {
  const [kind, { cell_line }] = Object.entries(task)[0];
  return measured(figures, cell_line.toLowerCase(), kind, verifier, belief);
}

const RELIABILITY = /^(\w+)\.(\w+)\.frequency_where_belief_is_/;

// The same for all that an artifact was measured on, without a belief at hand.
export function calibrations(figures, verifier) {
  const on = new Set(Object.keys(figures).map((name) => name.match(RELIABILITY)).filter(Boolean).map(([, line, kind]) => `${line}.${kind}`));
  return [...on].sort().map((each) => measured(figures, ...each.split("."), verifier, null));
}

function measured(figures, line, kind, verifier, belief) {
  const prefix = `${line}.${kind}.`;
  const word = affirming({ [kind]: true });
  const points = Object.entries(figures)
    .filter(([name]) => name.startsWith(`${prefix}frequency_where_belief_is_`))
    .map(([name, frequency]) => [Number(name.slice(`${prefix}frequency_where_belief_is_`.length)), frequency])
    .sort(([one], [other]) => one - other);
  if (!points.length) return null;
  const [x, y] = [(at) => 34 + 150 * at, (at) => 160 - 150 * at];
  const [error, brier] = [figures[`${prefix}calibration_error`], figures[`${prefix}brier`]];
  const quality = `Calibration error ${number(error, 3)}, Brier score ${number(brier, 3)}.`;
  const near = belief === null ? null : points.reduce((best, point) => (Math.abs(point[0] - belief) < Math.abs(best[0] - belief) ? point : best));
  const told = near ? `where it believed ${number(near[0])}, ${word} was right in ${Math.round(100 * near[1])} % of the cases` : `${kind.replaceAll("_", " ")}, ${line.toUpperCase()}. ${quality}`;
  const svg = drawn("svg", { class: "chart square", viewBox: "0 0 200 196", role: "img", "aria-label": `Reliability of ${verifier}: ${told}` });
  svg.append(drawn("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }), drawn("line", { x1: x(0), x2: x(1), y1: y(0), y2: y(0), class: "axis" }), drawn("line", { x1: x(0), x2: x(0), y1: y(0), y2: y(1), class: "axis" }));
  if (near) svg.append(drawn("line", { x1: x(belief), x2: x(belief), y1: y(0), y2: y(1), class: "marker" }));
  svg.append(drawn("polyline", { class: "curve", points: points.map(([at, frequency]) => `${x(at)},${y(frequency)}`).join(" ") }));
  for (const [at, frequency] of points) svg.append(drawn("circle", { cx: x(at), cy: y(frequency), r: 3, class: "dot" }));
  for (const [at, anchor] of [[0, "start"], [1, "end"]]) svg.append(text(x(at), 174, String(at), anchor), text(30, y(at) + 4, String(at), "end"));
  svg.append(text(x(0.5), 190, "belief", "middle"), drawn("text", { transform: "translate(12 85) rotate(-90)", "text-anchor": "middle" }, `share of ${word}`));
  const caption = near
    ? `Where it believed about ${number(near[0])}, “${word}” was right in ${Math.round(100 * near[1])} % of the cases (out of fold, ${line.toUpperCase()}). ${quality}`
    : `${kind.replaceAll("_", " ")}, ${line.toUpperCase()}, out of fold. On the diagonal a belief of .7 is right in 70 % of the cases. ${quality}`;
  return element("figure", { class: "beside" }, svg, element("figcaption", { class: "soft" }, caption));
}

const text = (x, y, content, anchor, name = "") => drawn("text", { x, y, "text-anchor": anchor, class: name }, content);
