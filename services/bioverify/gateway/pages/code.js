// The very request as curl, Python and command line, and the reply as a file.
import { element } from "./elements.js";

// JSON's strings are shell words once their single quotes are taken out of the quoting, and Python's literals as they are.
const shellWord = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function forCode(request, reply) {
  const lines = request.items.map((item) => JSON.stringify(item));
  const python = request.items.map(({ id, prompt, completion, group_id: group }) => `    ScoreItem(id=${JSON.stringify(id)}, prompt=${JSON.stringify(prompt)}, completion=${JSON.stringify(completion)}${group ? `, group_id=${JSON.stringify(group)}` : ""}),`);
  const ways = {
    curl: `curl ${shellWord(new URL("v1/score", location.href).href)} -H 'content-type: application/json' --data-raw ${shellWord(JSON.stringify(request))}`,
    Python: `from bioverify.client import Client, ScoreItem\n\nitems = [\n${python.join("\n")}\n]\nwith Client("127.0.0.1:15050") as client:  # the aggregator\n    for reward in client.score(items, ${JSON.stringify(request.recipe)}).rewards:\n        print(reward.id, reward.reward, reward.verdict)`,
    "Command line": `printf '%s\\n' ${lines.map(shellWord).join(" ")} > items.jsonl\nbioverify score items.jsonl --recipe ${shellWord(request.recipe)}`,
  };
  return element(
    "details",
    { class: "card", id: "code" },
    element("summary", {}, "Use this from code"),
    Object.entries(ways).map(([name, text]) => element("section", {}, element("h3", {}, name), element("pre", { tabindex: 0, role: "region", "aria-label": name }, text))),
    element("p", {}, element("button", { type: "button", onclick: () => save(reply) }, "Download the reply as JSON")),
  );
}

function save(reply) {
  const link = element("a", { href: URL.createObjectURL(new Blob([JSON.stringify(reply, null, 2)], { type: "application/json" })), download: "bioverify.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}
