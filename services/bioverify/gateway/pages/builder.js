// A question out of genes: the forms are those that the page lists, the names those of the gene table.
import { ask, attempt } from "./common.js";
import { element } from "./elements.js";

const OFFERED = 12;
const field = (id) => document.getElementById(id);
let genes;

export function builder() {
  const forms = [...document.querySelectorAll("#forms li")].map((each) => each.textContent);
  field("build-form").append(...forms.map((form, index) => element("option", { value: index }, form.replace(/\{(A|B)\}/g, "$1").replace("{line}", "…"))));
  const write = () => {
    const form = forms[field("build-form").value];
    field("build-line").disabled = !form.includes("{line}");
    const names = { A: field("build-a").value.trim(), B: field("build-b").value.trim(), line: field("build-line").value.trim() };
    if (!names.A || !names.B) return;
    field("prompt").value = form.replace(/\{(A|B|line)\}/g, (_, name) => names[name]);
  };
  for (const id of ["build-form", "build-a", "build-b", "build-line"]) field(id).addEventListener("input", write);
  for (const id of ["build-a", "build-b"]) {
    field(id).addEventListener("focus", load);
    field(id).addEventListener("input", offer);
  }
}

// The table is as large as the rest of the page, so it is asked for by the first who builds a question.
async function load() {
  genes ??= attempt(async () => (await (await ask("genes.txt")).text()).split("\n"));
  await genes;
}

async function offer(event) {
  await load();
  const begun = event.target.value.trim().toUpperCase();
  const known = (await genes) ?? [];
  const fitting = begun ? known.filter((name) => name.toUpperCase().startsWith(begun)).slice(0, OFFERED) : [];
  field("genes").replaceChildren(...fitting.map((name) => element("option", { value: name })));
}
