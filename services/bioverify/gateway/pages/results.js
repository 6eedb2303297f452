// Results of a file: which of them are shown in what order, how their rewards lie, where verifiers disagree.
import { drawn, element, label, number } from "./elements.js";

const BINS = 24;
const OPPOSED_AT = 0.5;

export const labelsOf = (rows) => [...new Set(rows.flatMap((row) => row.parts.map(label)))];

const believing = (row) => row.parts.filter((part) => !part.component && part.outcome === "scored" && part.belief !== null);

export class Results {
  constructor(rows) {
    this.rows = rows;
    this.by = null;
    this.isUp = true;
    // What is asked of every row at every key press is worked out once.
    this.known = new Map(
      rows.map((row, place) => {
        const beliefs = believing(row).map((part) => part.belief);
        const [lowest, highest] = [Math.min(...beliefs), Math.max(...beliefs)];
        return [row, { place, words: JSON.stringify(row).toLowerCase(), spread: beliefs.length > 1 ? highest - lowest : null, opposed: beliefs.length > 1 && lowest < OPPOSED_AT && highest > OPPOSED_AT }];
      }),
    );
  }

  placeOf = (row) => this.known.get(row).place;
  spreadOf = (row) => this.known.get(row).spread;
  partOf = (row, name) => row.parts.find((part) => label(part) === name) ?? null;

  sortBy(by) {
    [this.by, this.isUp] = [by, this.by === by ? !this.isUp : true];
  }

  sortOf(by) {
    return by !== this.by ? "none" : this.isUp ? "ascending" : "descending";
  }

  chosen({ words, least, most, verifier, outcome, unscorable, opposed }) {
    const wanted = words.toLowerCase();
    const said = (row) => row.parts.some((part) => (!verifier || label(part) === verifier) && part.outcome === outcome);
    const shown = this.rows.filter(
      (row) =>
        (!wanted || this.known.get(row).words.includes(wanted)) &&
        (least === null || (row.reward !== null && row.reward >= least)) &&
        (most === null || (row.reward !== null && row.reward <= most)) &&
        (!outcome || said(row)) &&
        (!unscorable || row.reward === null) &&
        (!opposed || this.known.get(row).opposed),
    );
    if (!this.by) return shown;
    const of = { value: (row) => (verifier ? this.partOf(row, verifier)?.value : null), spread: this.spreadOf }[this.by] ?? ((row) => row[this.by]);
    const sign = this.isUp ? 1 : -1;
    const order = new Intl.Collator(undefined, { numeric: true });
    return shown.sort((one, other) => {
      const [a, b] = [of(one) ?? -Infinity, of(other) ?? -Infinity];
      return sign * (typeof a === "string" && typeof b === "string" ? order.compare(a, b) : a < b ? -1 : a > b ? 1 : 0);
    });
  }
}

// All rewards in grey, those that the filters let through in front of them; a bar is a filter.
export function rewardsHistogram(all, shown, choose) {
  const rewards = all.map((row) => row.reward).filter((reward) => reward !== null);
  if (!rewards.length) return element("p", { class: "soft" }, "No completion has a reward.");
  const [lowest, highest] = rewards.reduce(([low, high], reward) => [Math.min(low, reward), Math.max(high, reward)], [Infinity, -Infinity]);
  const width = (highest - lowest || 1) / BINS;
  const counts = (rows) => {
    const bins = new Array(BINS).fill(0);
    for (const { reward } of rows) if (reward !== null) bins[Math.min(BINS - 1, Math.floor((reward - lowest) / width))] += 1;
    return bins;
  };
  const [everything, chosen] = [counts(all), counts(shown)];
  const tallest = Math.max(...everything);
  const kept = shown.map((row) => row.reward).filter((reward) => reward !== null);
  const mean = kept.length ? kept.reduce((sum, reward) => sum + reward, 0) / kept.length : null;
  const told = `Rewards from ${number(lowest, 3)} to ${number(highest, 3)}; of the ${kept.length.toLocaleString()} shown the mean is ${number(mean, 3)}`;
  const svg = drawn("svg", { class: "chart", viewBox: "0 0 400 150", role: "img", "aria-label": `Histogram. ${told}` });
  everything.forEach((count, bin) => {
    const [x, from, to] = [12 + (376 * bin) / BINS, lowest + width * bin, bin === BINS - 1 ? highest : lowest + width * (bin + 1)];
    const height = (value) => (value ? Math.max(1.5, (110 * value) / tallest) : 0);
    svg.append(drawn("rect", { x: x + 0.5, y: 126 - height(count), width: 376 / BINS - 1, height: height(count), class: "others" }));
    svg.append(drawn("rect", { x: x + 0.5, y: 126 - height(chosen[bin]), width: 376 / BINS - 1, height: height(chosen[bin]), class: "chosen" }));
    const bar = drawn("rect", { x, y: 10, width: 376 / BINS, height: 118, class: "target" }, drawn("title", {}, `${number(from)} to ${number(to)}: ${chosen[bin]} shown of ${count}`));
    bar.addEventListener("click", () => choose(Number(from.toFixed(4)), Number(to.toFixed(4))));
    svg.append(bar);
  });
  svg.append(drawn("line", { x1: 12, x2: 388, y1: 126, y2: 126, class: "axis" }));
  for (const [x, anchor, value] of [[12, "start", lowest], [388, "end", highest]]) svg.append(drawn("text", { x, y: 143, "text-anchor": anchor }, number(value)));
  return element("figure", {}, element("h3", {}, "Rewards"), svg, element("figcaption", { class: "soft" }, `${told}. Unscorable: ${(shown.length - kept.length).toLocaleString()}.`));
}

// Of each two verifiers that hold beliefs: how far apart they are, and how often on different sides of one half.
export function disagreements(rows) {
  const pairs = new Map();
  for (const row of rows) {
    const parts = believing(row);
    parts.forEach((one, index) => {
      for (const other of parts.slice(index + 1)) {
        const names = [one.verifier, other.verifier].sort().join(" and ");
        const pair = pairs.get(names) ?? { items: 0, apart: 0, opposed: 0 };
        pair.items += 1;
        pair.apart += Math.abs(one.belief - other.belief);
        pair.opposed += (one.belief - OPPOSED_AT) * (other.belief - OPPOSED_AT) < 0 ? 1 : 0;
        pairs.set(names, pair);
      }
    });
  }
  if (!pairs.size) return element("p", { class: "soft" }, "No two verifiers hold a belief about the same completion here.");
  const most = [...pairs].sort(([, one], [, other]) => other.apart / other.items - one.apart / one.items);
  return element(
    "div",
    {},
    element("h3", {}, "Disagreement between verifiers"),
    element(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Disagreement between verifiers" },
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ["beliefs of", "completions", "mean distance", "contradict"].map((name, index) => element("th", { scope: "col", class: index ? "number" : "" }, name)))),
        element("tbody", {}, most.map(([names, { items, apart, opposed }]) => element("tr", {}, element("th", { scope: "row" }, names), ...[items.toLocaleString(), number(apart / items), `${((100 * opposed) / items).toFixed(0)} %`].map((text) => element("td", { class: "number" }, text))))),
      ),
    ),
  );
}
