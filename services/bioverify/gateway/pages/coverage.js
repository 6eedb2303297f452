// What each verifier knows of a gene or a pair: every kind of question is asked of all of them, and what they say is shown.
import { element } from "./elements.js";
import { linked } from "./links.js";

export function questionsOf(first, second, line) {
  const pair = { perturbation: first, measured_gene: second, cell_line: line };
  const asked = second
    ? [
        [`${second} responds to ${first}, ${line}`, { differential_expression: pair }, "yes"],
        [`direction, ${line}`, { direction_of_change: pair }, "increase"],
        ["expressed together", { co_expression: { gene_a: first, gene_b: second } }, "yes"],
        ["annotations", { gene_annotation: { genes: [first, second] } }, "yes"],
      ]
    : [["annotations", { gene_annotation: { genes: [first] } }, "yes"]];
  return asked.map(([title, task, answer], index) => ({ title, item: { id: String(index), task, completion: `<think>${first} ${second}</think> <answer>${answer}</answer>` } }));
}

export function coverageTable(questions, verifiers, rewards) {
  const rows = verifiers.map((verifier) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, verifier.name),
      rewards.map((reward) => said(reward.parts.find((part) => part.verifier === verifier.name))),
    ),
  );
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "What each verifier knows" },
    element("table", { class: "coverage" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "verifier"), questions.map(({ title }) => element("th", { scope: "col" }, title)))), element("tbody", {}, rows)),
  );
}

function said(part) {
  if (part?.outcome === "scored") return element("td", {}, element("span", { class: "good" }, "● knows it"), element("div", { class: "soft" }, linked(part.evidence[0]?.text ?? ""), part.evidence.some((each) => each.simulated) ? element("span", { class: "tag warn" }, "simulated") : null));
  if (part?.outcome === "failed") return element("td", { class: "bad" }, "failed: ", part.detail || part.reason);
  return element("td", {}, "○ does not apply", element("div", { class: "soft" }, part?.detail || part?.reason || ""));
}
