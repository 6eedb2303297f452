import { askJson, attempt, element, say } from "./common.js";

async function refresh() {
  const started = performance.now();
  const { verifiers } = await askJson("v1/verifiers");
  const ready = verifiers.filter((verifier) => verifier.is_ready).length;
  say(`${ready} of ${verifiers.length} answer; asked in ${Math.round(performance.now() - started)} ms.`, ready === verifiers.length ? "" : "warn");
  document.getElementById("verifiers").replaceChildren(...verifiers.map(card));
}

function card(verifier) {
  const state = verifier.is_ready ? element("span", { class: "good" }, "ready") : element("span", { class: "bad" }, `not ready: ${verifier.failure?.detail ?? ""}`);
  return element(
    "article",
    { class: "card" },
    element("h2", {}, verifier.name, " ", element("small", {}, state)),
    element("p", {}, verifier.summary),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Facts of ${verifier.name}` }, element(
      "table",
      {},
      element(
        "tbody",
        {},
        fact("version", verifier.version),
        fact("fingerprint", element("code", {}, verifier.fingerprint)),
        fact("address", verifier.target),
        fact("answers", verifier.task_kinds.map((kind) => kind.replaceAll("_", " ")).join(", ") || "every kind of question"),
        fact("reads", verifier.reads.join(", ")),
        fact("holds a belief", verifier.holds_belief ? "yes" : "no"),
        fact("artifacts", element("ul", { class: "plain" }, verifier.artifacts.map((artifact) => element("li", {}, `${artifact.name} `, element("code", {}, artifact.digest.slice(0, 19)), artifact.simulated ? element("span", { class: "tag warn" }, "simulated") : null, element("span", { class: "soft" }, ` ${artifact.license}`))))),
        fact("components", element("ul", { class: "plain" }, Object.entries(verifier.components).map(([name, meaning]) => element("li", {}, element("code", {}, name), ` ${meaning}`)))),
      ),
    )),
  );
}

const fact = (name, value) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value));

for (;;) {
  await attempt(refresh);
  await new Promise((resolve) => setTimeout(resolve, 10000));
}
