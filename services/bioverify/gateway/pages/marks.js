// Which words of a text the verifiers' evidence names, and the text with them marked. Why a word is marked is said below
// the text while a pointer or the keyboard is on it.
import { element } from "./elements.js";

const MATCHED = /matched: (.*)$/;
const QUOTED = /, (?:not )?"(.+)": \w/;
const NAMES = /(?:^|; )names ([^;]*)/;
const SHORTEST = 3;

// Term → the sentences that name it.
export function matchedTerms(parts) {
  const terms = new Map();
  const add = (term, said) => {
    const bare = term.trim().replace(/[.…]+$/, "").toLowerCase();
    if (bare.length >= SHORTEST) terms.set(bare, (terms.get(bare) ?? new Set()).add(said));
  };
  for (const part of parts.filter((each) => !each.component))
    for (const { text } of part.evidence) {
      const said = `${part.verifier}: ${text}`;
      const [listed, quoted, named] = [text.match(MATCHED), text.match(QUOTED), text.match(NAMES)];
      if (listed) for (const term of listed[1].split(/; |, /)) add(term, said);
      if (quoted) add(quoted[1], said);
      if (named) for (const term of named[1].split(", ")) add(term, said);
    }
  return terms;
}

const escaped = (term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+");

// Terms that stand there word for word are marked as they are; of others, whose words were found one by one, the words.
function patterns(text, terms) {
  const found = new Map();
  for (const [term, said] of terms) {
    const whole = new RegExp(`(?<![\\p{L}\\p{N}])${escaped(term)}(?![\\p{L}\\p{N}])`, "giu");
    if (whole.test(text)) found.set(term, { source: whole.source, said });
    else
      for (const word of term.split(/[^\p{L}\p{N}-]+/u).filter((each) => each.length > SHORTEST)) {
        const stem = word.slice(0, Math.max(SHORTEST + 1, word.length - 3));
        const before = found.get(stem)?.said ?? [];
        found.set(stem, { source: `(?<![\\p{L}\\p{N}])${escaped(stem)}[\\p{L}\\p{N}]*`, said: new Set([...before, ...said]) });
      }
  }
  return [...found.values()].sort((one, other) => other.source.length - one.source.length);
}

export function markedText(text, parts) {
  const looked = patterns(text, matchedTerms(parts));
  const says = element("p", { class: "says soft", role: "status" });
  const nothing = looked.length ? "Point at a mark, or go to it with Tab, to see why it is there." : "No word of it is named by the evidence.";
  const tell = (reasons) => says.replaceChildren(...(reasons ? reasons.map((reason) => element("span", {}, reason)) : [nothing]));
  tell(null);
  const pieces = [];
  let at = 0;
  const all = looked.length ? new RegExp(looked.map(({ source }) => `(${source})`).join("|"), "giu") : null;
  for (const found of all ? text.matchAll(all) : []) {
    const reasons = [...looked[found.slice(1).findIndex((group) => group !== undefined)].said];
    const listen = { onmouseenter: () => tell(reasons), onfocus: () => tell(reasons), onmouseleave: () => tell(null), onblur: () => tell(null), onclick: () => tell(reasons) };
    pieces.push(text.slice(at, found.index), element("button", { type: "button", class: "term", ...listen }, element("mark", {}, found[0])));
    at = found.index + found[0].length;
  }
  pieces.push(text.slice(at));
  return [element("p", { class: "said" }, pieces), says];
}
