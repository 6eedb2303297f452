// The completions of one question compared: weights that a person may move, rewards and GRPO's advantages of them.
import { element, label, number } from "./elements.js";

// TRL's: the deviation of a sample, and what keeps it from zero.
const EPSILON = 1e-4;

export class Weights {
  constructor(rewards) {
    this.rewards = rewards;
    this.listeners = [];
    this.given = new Map(rewards.flatMap((reward) => reward.parts.map((part) => [label(part), part.weight])));
    this.of = new Map(this.given);
  }

  get areGiven() {
    return [...this.given].every(([name, weight]) => this.of.get(name) === weight);
  }

  // What the reply says until a weight is moved: its sums are to the last bit.
  reward(reward) {
    if (reward.reward === null || this.areGiven) return { reward: reward.reward, highest: reward.highest };
    const counted = reward.parts.filter((part) => part.contribution !== null);
    return {
      reward: counted.reduce((sum, part) => sum + this.of.get(label(part)) * part.value, 0),
      highest: counted.reduce((sum, part) => sum + Math.max(0, this.of.get(label(part))), 0),
    };
  }

  contribution(part) {
    if (part.contribution === null) return null;
    const weight = this.of.get(label(part));
    return weight === this.given.get(label(part)) ? part.contribution : weight * part.value;
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  changed() {
    for (const listener of this.listeners) listener();
  }
}

// null for a member without a reward, which training masks; all null if fewer than two have one.
export function advantages(rewards) {
  const known = rewards.filter((reward) => reward !== null);
  if (known.length < 2) return rewards.map(() => null);
  const mean = known.reduce((sum, reward) => sum + reward, 0) / known.length;
  const deviation = Math.sqrt(known.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (known.length - 1));
  return rewards.map((reward) => (reward === null ? null : (reward - mean) / (deviation + EPSILON)));
}

export function groupTable(rewards, weights) {
  const body = element("tbody");
  weights.onChange(() => {
    const composed = rewards.map((reward) => weights.reward(reward).reward);
    const gained = advantages(composed);
    body.replaceChildren(
      ...rewards.map((reward, index) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, reward.id),
          element("td", {}, (reward.answer ?? "–").replaceAll("_", " ")),
          element("td", { class: "number" }, composed[index] === null ? "unscorable" : number(composed[index], 3)),
          element("td", { class: `number ${gained[index] > 0 ? "good" : gained[index] < 0 ? "bad" : ""}` }, gained[index] === null ? "masked" : `${gained[index] > 0 ? "+" : ""}${number(gained[index], 3)}`),
        ),
      ),
    );
  });
  const dropped = [...new Set(rewards.flatMap((reward) => reward.parts.filter((part) => part.contribution === null).map(label)))];
  const because = dropped.map((name) => {
    const lacking = rewards.filter((reward) => reward.parts.some((part) => label(part) === name && part.outcome !== "scored"));
    return element("li", {}, element("b", {}, name), lacking.length === rewards.length ? ": applies to none of them" : `: dropped for all, since ${lacking.map((reward) => reward.id).join(", ")} lacks it`);
  });
  return element(
    "section",
    { class: "card", "aria-label": "The group" },
    element("h2", {}, `A group of ${rewards.length}`),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Rewards and advantages" }, element("table", { class: "lines" }, element("thead", {}, element("tr", {}, ["completion", "answer", "reward", "advantage"].map((name, index) => element("th", { scope: "col", class: index > 1 ? "number" : "" }, name)))), body)),
    element("p", { class: "soft" }, "The advantage is what GRPO trains on: (reward − mean) ÷ (deviation + 0.0001) of the group."),
    because.length ? element("p", {}, "Not in these rewards:") : null,
    because.length ? element("ul", { class: "plain" }, because) : null,
  );
}

export function weightSliders(weights) {
  const reset = element("button", { type: "button", class: "quiet", onclick: () => { weights.of = new Map(weights.given); for (const put of puts) put(); weights.changed(); } }, "Back to the recipe's");
  const puts = [];
  const rows = [...weights.given].map(([name, given], index) => {
    const slider = element("input", { type: "range", id: `weight-${index}`, min: Math.min(0, 2 * given), max: Math.max(4, 2 * given), step: 0.05 });
    const shown = element("output", { for: slider.id });
    const put = () => { slider.value = weights.of.get(name); shown.textContent = number(weights.of.get(name)); };
    slider.addEventListener("input", () => { weights.of.set(name, Number(slider.value)); shown.textContent = number(Number(slider.value)); weights.changed(); });
    puts.push(put);
    put();
    return element("div", { class: "slider" }, element("label", { for: slider.id }, name), slider, shown);
  });
  return element("details", { class: "card", id: "weights" }, element("summary", {}, "Weights: move them and the rewards follow"), rows, reset);
}
