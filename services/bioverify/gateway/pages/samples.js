// A completion that a run kept, with what each verifier made of it.
import { element, number } from "./elements.js";

export function sampleCard(sample) {
  const counts = sample.parts.filter((part) => part.contribution !== null);
  return element(
    "article",
    { class: "card" },
    element("h3", {}, sample.reward === null ? `Step ${sample.step}: unscorable` : `Step ${sample.step}: reward ${number(sample.reward, 3)}`),
    sample.reward === null ? element("p", { class: "warn" }, sample.unscorable_because) : element("p", { class: "soft" }, counts.map((part) => `${part.term} ${number(part.contribution)}`).join(" + ")),
    element("p", {}, sample.question),
    element("p", { class: "said" }, sample.completion),
    element("ul", { class: "plain" }, sample.parts.map(because)),
  );
}

function because(part) {
  const worth = part.contribution === null ? (part.dropped_because || "not counted").replaceAll("_", " ") : `${number(part.value)} × ${Number(part.weight.toFixed(3))}`;
  const reasons = part.reason ? [part.reason] : [];
  return element("li", {}, element("b", {}, part.term), ` ${worth}`, ...reasons.map((reason) => element("div", { class: "soft" }, reason)), ...part.evidence.map((evidence) => element("div", { class: "soft" }, evidence.text, evidence.simulated ? element("span", { class: "tag warn" }, "simulated") : null, evidence.source ? ` (${evidence.source})` : null)));
}
