import { ask, askJson, attempt, fillRecipes, say } from "./common.js";
import { card } from "./card.js";
import { element, number } from "./elements.js";
import { Weights } from "./group.js";
import { toForm } from "./links.js";
import { disagreements, labelsOf, Results, rewardsHistogram } from "./results.js";

const SHOWN_BAD_LINES = 200;
// Made at once; the rest follow between two frames, so that a thousand rows keep no key press waiting.
const ROWS_AT_ONCE = 40;
// Some four thousand results with their evidence.
const PREVIEW_BYTES = 16 * 2 ** 20;
const ENDED = ["done", "cancelled", "failed"];
const field = (id) => document.getElementById(id);
const NAMES = "bioverify-files";
// What the files of this tab were called; the gateway is not told.
const names = new Map(JSON.parse(sessionStorage.getItem(NAMES) ?? "[]"));
let wake = () => {};
let results = new Results([]);
let looked = null;
let drawing = 0;

field("job-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const [file] = field("file").files;
    say(`Sending ${file.name}…`);
    const job = await askJson(`v1/jobs?recipe=${encodeURIComponent(field("recipe").value)}`, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body: file });
    say(`Job ${job.id}: ${job.lines.toLocaleString()} lines.`);
    remember(job.id, file.name);
    await refresh();
    wake();
  });
});
const FILTERS = ["filter", "least", "most", "verifier", "outcome", "only-unscorable", "only-opposed"];
for (const id of FILTERS) field(id).addEventListener("input", showRows);
field("clear").addEventListener("click", () => {
  clearFilters();
  showRows();
});
for (const button of document.querySelectorAll("[data-sort]"))
  button.addEventListener("click", () => {
    results.sortBy(button.dataset.sort);
    showRows();
  });

async function refresh() {
  const { jobs } = await askJson("v1/jobs");
  // A person may be on one of the buttons: rows are made again only if something has changed.
  const state = JSON.stringify(jobs);
  const body = field("jobs").tBodies[0];
  if (body.dataset.state !== state) {
    const focused = document.activeElement?.dataset?.name;
    body.dataset.state = state;
    body.replaceChildren(...jobs.map(jobRow));
    field("jobs").hidden = !jobs.length;
    field("no-jobs").hidden = jobs.length > 0;
    if (focused) body.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  }
  return jobs.some((job) => !ENDED.includes(job.state));
}

function jobRow(job) {
  const button = (name, work) => element("button", { type: "button", class: "quiet", "data-name": `${name} ${job.id}`, "aria-label": `${name} job ${job.id}`, onclick: () => attempt(work) }, name);
  return element(
    "tr",
    {},
    element("td", {}, element("code", {}, job.id), element("div", { class: "soft" }, [names.get(job.id), new Date(1000 * job.created).toLocaleString()].filter(Boolean).join(", "))),
    element("td", {}, job.recipe),
    element("td", { class: job.state === "failed" ? "bad" : "" }, job.state, job.detail ? element("div", { class: "soft" }, job.detail) : null, ...notRead(job), job.warning ? element("div", { class: "warn" }, job.warning) : null),
    element("td", {}, element("progress", { max: Math.max(1, job.lines), value: job.line, "aria-label": `Progress of job ${job.id}` })),
    ...[job.scored, job.unscorable, job.bad_lines].map((count) => element("td", { class: "number" }, count.toLocaleString())),
    element(
      "td",
      { class: "row" },
      button("Look", () => preview(job)),
      button("Download", () => save(job, "results")),
      job.bad_lines ? button("Bad lines", () => showBadLines(job)) : null,
      ENDED.includes(job.state)
        ? button("Remove", async () => { await ask(`v1/jobs/${job.id}`, { method: "DELETE" }); await refresh(); })
        : button("Cancel", async () => { await ask(`v1/jobs/${job.id}:cancel`, { method: "POST" }); await refresh(); }),
    ),
  );
}

function remember(job, name) {
  names.set(job, name);
  sessionStorage.setItem(NAMES, JSON.stringify([...names]));
}

function notRead(job) {
  const said = { question: "questions not read", thought: "completions without a thought", answer: "answers not read" };
  return Object.entries(job.not_read)
    .filter(([, reasons]) => Object.keys(reasons).length)
    .map(([part, reasons]) => element("div", { class: "soft" }, `${said[part]}: ${Object.entries(reasons).map(([reason, count]) => `${reason} ${count.toLocaleString()}`).join(", ")}`));
}

async function save(job, what) {
  const link = element("a", { href: URL.createObjectURL(await (await ask(`v1/jobs/${job.id}/${what}`)).blob()), download: `${job.id}.${what}.jsonl` });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function showBadLines(job) {
  const text = await linesOf(job, "bad-lines");
  const section = field("bad-lines");
  section.hidden = false;
  section.replaceChildren(
    element("h2", {}, `Lines of ${job.id} that could not be read`),
    element("p", {}, element("button", { type: "button", class: "quiet", onclick: () => attempt(() => save(job, "bad-lines")) }, "Download the bad lines")),
    element("ul", { class: "plain" }, text.slice(0, SHOWN_BAD_LINES).map((bad) => element("li", {}, element("b", {}, `line ${bad.line}: `), bad.problem))),
    text.length > SHOWN_BAD_LINES ? element("p", { class: "soft" }, `The first ${SHOWN_BAD_LINES} are shown.`) : "",
  );
  section.scrollIntoView();
}

// As much as a page can hold, cut at the end of a line.
async function linesOf(job, what) {
  const answer = await ask(`v1/jobs/${job.id}/${what}`, { headers: { range: `bytes=0-${PREVIEW_BYTES - 1}` } });
  const text = await answer.text();
  return text.slice(0, text.lastIndexOf("\n") + 1).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

async function preview(job) {
  if (!job.result_bytes) return say(`Job ${job.id} has no results yet.`);
  results = new Results(await linesOf(job, "results"));
  looked = job;
  field("preview").hidden = false;
  field("preview-title").textContent = `Results of ${names.get(job.id) ?? job.id}`;
  field("verifier").replaceChildren(element("option", { value: "" }, "all"), ...labelsOf(results.rows).map((name) => element("option", {}, name)));
  clearFilters();
  showRows();
  field("preview-title").focus();
  return undefined;
}

function clearFilters() {
  for (const id of FILTERS) {
    if (field(id).type === "checkbox") field(id).checked = false;
    else field(id).value = "";
  }
}

function between(least, most) {
  field("least").value = least;
  field("most").value = most;
  showRows();
}

function showRows() {
  const bound = (id) => (field(id).value === "" ? null : Number(field(id).value));
  const verifier = field("verifier").value;
  const shown = results.chosen({
    words: field("filter").value,
    least: bound("least"),
    most: bound("most"),
    verifier,
    outcome: field("outcome").value,
    unscorable: field("only-unscorable").checked,
    opposed: field("only-opposed").checked,
  });
  for (const head of document.querySelectorAll("#rewards th[aria-sort]")) head.setAttribute("aria-sort", results.sortOf(head.firstElementChild.dataset.sort));
  field("sort-value").textContent = verifier ? `value of ${verifier}` : "value";
  field("sort-value").disabled = !verifier;
  const all = results.rows.length;
  field("shown").textContent = `${shown.length.toLocaleString()} of ${all.toLocaleString()} results shown${looked.scored + looked.unscorable > all ? `, of the first ${all.toLocaleString()} of ${(looked.scored + looked.unscorable).toLocaleString()}` : ""}. An id opens its completion.`;
  field("histogram").replaceChildren(rewardsHistogram(results.rows, shown, between));
  field("disagreement").replaceChildren(disagreements(shown));
  drawRows(shown, verifier);
}

function drawRows(shown, verifier) {
  const body = field("rewards").tBodies[0];
  const mine = ++drawing;
  let at = 0;
  const more = () => {
    if (mine !== drawing) return;
    const rows = shown.slice(at, at + ROWS_AT_ONCE).map((row) => rewardRow(row, verifier));
    if (at) body.append(...rows);
    else body.replaceChildren(...rows);
    at += ROWS_AT_ONCE;
    if (at < shown.length) requestAnimationFrame(more);
  };
  more();
}

function rewardRow(row, verifier) {
  const highest = (row.highest ?? null) === null ? null : element("span", { class: "soft" }, ` of ${Number(row.highest.toFixed(3))}`);
  const part = verifier ? results.partOf(row, verifier) : null;
  return element(
    "tr",
    {},
    element("td", {}, element("button", { type: "button", class: "link", onclick: () => attempt(() => showCompletion(row)) }, row.id)),
    element("td", { class: "number" }, row.reward === null ? "unscorable" : number(row.reward, 3), row.reward === null ? null : highest),
    element("td", {}, (row.answer ?? "–").replaceAll("_", " ")),
    element("td", { class: "number" }, part ? (part.outcome === "scored" ? number(part.value, 3) : part.outcome.replaceAll("_", " ")) : "–"),
    element("td", { class: "number" }, number(results.spreadOf(row))),
    element("td", {}, row.verdict, row.reward === null ? element("span", { class: "warn" }, ` ${row.unscorable_because}`) : null),
  );
}

// The stored reward, as the page with the form shows it: nothing is scored again.
async function showCompletion(row) {
  const job = looked;
  const asked = await askJson(`v1/jobs/${job.id}/items/${results.placeOf(row)}`);
  const weights = new Weights([row]);
  const dialog = field("completion");
  dialog.replaceChildren(
    element("p", { class: "row" }, element("b", {}, `Line ${asked.line} of ${names.get(job.id) ?? job.id}`), element("a", { href: toForm({ prompt: asked.prompt, completions: [asked.completion], recipe: asked.recipe }) }, "Try changes of it"), element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close")),
    element("p", { class: "said" }, asked.prompt || "The line has no prompt, only a task."),
    card(row, asked.completion, weights),
  );
  weights.changed();
  dialog.showModal();
  dialog.scrollTop = 0;
}

await attempt(() => fillRecipes(field("recipe"), "all"));
for (;;) {
  const busy = await attempt(refresh);
  // A file that was just sent is looked at soon, not when the quiet page would have asked again.
  await new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, busy ? 500 : 5000);
  });
}
