import { ask, askJson, attempt, element, fillRecipes, label, number, say } from "./common.js";

const SHOWN_ROWS = 200;
const PREVIEW_BYTES = 4 * 2 ** 20;
const ENDED = ["done", "cancelled", "failed"];
const field = (id) => document.getElementById(id);
const NAMES = "bioverify-files";
// What the files of this tab were called; the gateway is not told.
const names = new Map(JSON.parse(sessionStorage.getItem(NAMES) ?? "[]"));
let wake = () => {};
let rows = [];
let sorted = { by: null, up: true };

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
field("filter").addEventListener("input", showRows);
field("only-unscorable").addEventListener("change", showRows);
for (const button of document.querySelectorAll("[data-sort]"))
  button.addEventListener("click", () => {
    sorted = { by: button.dataset.sort, up: sorted.by === button.dataset.sort ? !sorted.up : true };
    for (const head of document.querySelectorAll("#rewards th[aria-sort]")) head.setAttribute("aria-sort", "none");
    button.parentElement.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
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
    element("ul", { class: "plain" }, text.slice(0, SHOWN_ROWS).map((bad) => element("li", {}, element("b", {}, `line ${bad.line}: `), bad.problem))),
    text.length > SHOWN_ROWS ? element("p", { class: "soft" }, `The first ${SHOWN_ROWS} are shown.`) : "",
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
  rows = await linesOf(job, "results");
  field("preview").hidden = false;
  field("preview-title").textContent = `Results of ${job.id}`;
  showRows();
  field("preview-title").scrollIntoView();
  return undefined;
}

function showRows() {
  const wanted = field("filter").value.toLowerCase();
  let shown = rows.filter((row) => (!wanted || JSON.stringify(row).toLowerCase().includes(wanted)) && (!field("only-unscorable").checked || row.reward === null));
  if (sorted.by) {
    const sign = sorted.up ? 1 : -1;
    const lowest = -Infinity;
    shown = [...shown].sort((one, other) => {
      const [a, b] = [one[sorted.by] ?? lowest, other[sorted.by] ?? lowest];
      return sign * (typeof a === "string" && typeof b === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : a > b ? 1 : 0);
    });
  }
  field("shown").textContent = `${Math.min(shown.length, SHOWN_ROWS).toLocaleString()} of ${shown.length.toLocaleString()} shown, of the first ${rows.length.toLocaleString()} results`;
  field("rewards").tBodies[0].replaceChildren(
    ...shown.slice(0, SHOWN_ROWS).map((row) =>
      element(
        "tr",
        {},
        element("td", {}, row.id),
        element("td", { class: "number" }, number(row.reward, 3), (row.highest ?? null) === null ? null : element("span", { class: "soft" }, ` of ${Number(row.highest.toFixed(3))}`)),
        element("td", {}, (row.answer ?? "–").replaceAll("_", " ")),
        element("td", {}, element("b", {}, row.verdict ?? ""), row.reward === null ? element("p", { class: "warn" }, row.unscorable_because) : null, element("ul", { class: "plain" }, row.parts.filter((part) => !part.component).map((part) => element("li", {}, element("b", {}, `${label(part)} `), part.evidence[0]?.text ?? part.detail)))),
      ),
    ),
  );
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
