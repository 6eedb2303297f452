// The text with what the evidence judges of it: claims by their quotes, which say from where to where and how they were
// judged; words that a verifier matched or found named, by the words. Why a piece is marked is said below the text while
// a pointer or the keyboard is on it.
import { element } from "./elements.js";

const MATCHED = /matched: (.*)$/;
const NAMES = /(?:^|; )names ([^;]*)/;
const SHORTEST = 3;
const NOWHERE = { from: -1, to: -1 };
// Of several verdicts on one piece, the one that a reader has to see.
const GRAVEST = ["contradicted", "unsupported", "supported"];

// Pieces [from, to) of the text in UTF-16 units, each with the sentence that names it and the verdict on it, if any.
export function marked(text, parts) {
  const said = parts.filter((part) => !part.component).flatMap((part) => part.evidence.map((each) => ({ ...each, why: `${part.verifier}: ${each.text}${each.source ? ` (${each.source})` : ""}` })));
  const claims = said.filter(({ quote }) => quote).map(({ quote, why, ...evidence }) => ({ ...placed(text, quote, evidence.text), why, verdict: quote.verdict }));
  return [...claims.filter(({ from }) => from >= 0), ...words(text, said.filter(({ quote }) => !quote))];
}

// Quotes count code points of the text as it is scored: a thought that the prompt opened stands before it, foreign marks
// of thoughts are replaced. The sentence repeats the piece, so it is the occurrence nearest to where the quote has it.
function placed(text, { start, end }, sentence) {
  const characters = [...text];
  const units = (count) => characters.slice(0, count).join("").length;
  const repeated = [...sentence.slice(sentence.indexOf('"') + 1)];
  const piece = repeated.slice(0, end - start).join("");
  if (repeated[end - start] !== '"') return end > characters.length ? NOWHERE : { from: units(start), to: units(end) };
  let best = NOWHERE.from;
  const wanted = units(start);
  for (let at = text.indexOf(piece); at >= 0; at = text.indexOf(piece, at + 1)) if (best < 0 || Math.abs(at - wanted) < Math.abs(best - wanted)) best = at;
  return { from: best, to: best + piece.length };
}

// Term → the sentences that name it.
function matchedTerms(said) {
  const terms = new Map();
  const add = (term, why) => {
    const bare = term.trim().replace(/[.…]+$/, "").toLowerCase();
    if (bare.length >= SHORTEST) terms.set(bare, (terms.get(bare) ?? new Set()).add(why));
  };
  for (const { text, why } of said) {
    const [listed, named] = [text.match(MATCHED), text.match(NAMES)];
    if (listed) for (const term of listed[1].split(/; |, /)) add(term, why);
    if (named) for (const term of named[1].split(", ")) add(term, why);
  }
  return terms;
}

const escaped = (term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+");
const standing = (text, source) => [...text.matchAll(new RegExp(`(?<![\\p{L}\\p{N}])${source}`, "giu"))].map((hit) => ({ from: hit.index, to: hit.index + hit[0].length }));

// Terms that stand there word for word are marked as they are; of others, whose words were found one by one, the words.
// A piece within a longer one is not marked again.
function words(text, said) {
  const found = [];
  for (const [term, reasons] of matchedTerms(said)) {
    const whole = standing(text, `${escaped(term)}(?![\\p{L}\\p{N}])`);
    const stems = whole.length ? [] : term.split(/[^\p{L}\p{N}-]+/u).filter((word) => word.length > SHORTEST).map((word) => word.slice(0, Math.max(SHORTEST + 1, word.length - 3)));
    for (const piece of [...whole, ...stems.flatMap((stem) => standing(text, `${escaped(stem)}[\\p{L}\\p{N}]*`))]) for (const why of reasons) found.push({ ...piece, why, verdict: null });
  }
  const within = (one, other) => other.from <= one.from && one.to <= other.to && other.to - other.from > one.to - one.from;
  return found.filter((one) => !found.some((other) => within(one, other)));
}

export function markedText(text, parts) {
  const pieces = marked(text, parts);
  const says = element("p", { class: "says soft", role: "status" });
  const counts = GRAVEST.map((verdict) => [verdict, pieces.filter((piece) => piece.verdict === verdict).length]).filter(([, count]) => count);
  const judged = counts.length ? ` Claims: ${counts.map(([verdict, count]) => `${count} ${verdict}`).join(", ")}.` : "";
  const nothing = pieces.length ? `Point at a mark, or go to it with Tab, to see why it is there.${judged}` : "No word of it is named by the evidence.";
  // The pointer's mark or else the keyboard's: text that scrolls away below a pointer at rest takes nothing from who tabs.
  const at = { pointer: null, keyboard: null };
  let told;
  const tell = (change) => {
    Object.assign(at, change);
    const reasons = at.pointer ?? at.keyboard;
    if (reasons === told) return;
    told = reasons;
    says.replaceChildren(...(reasons ? reasons.map((reason) => element("span", {}, reason)) : [nothing]));
  };
  tell({});
  // Pieces may overlap, so the text is cut at every end of one.
  const ends = [...new Set([0, text.length, ...pieces.flatMap(({ from, to }) => [from, to])])].sort((one, other) => one - other);
  const cut = ends.slice(1).map((to, index) => {
    const [shown, on] = [text.slice(ends[index], to), pieces.filter((piece) => piece.from <= ends[index] && to <= piece.to)];
    if (!on.length || !shown.trim()) return shown;
    const reasons = [...new Set(on.map(({ why }) => why))];
    const verdict = GRAVEST.find((each) => on.some((piece) => piece.verdict === each));
    const pointed = () => tell({ pointer: reasons });
    const listen = { onmousemove: pointed, onclick: pointed, onmouseleave: () => tell({ pointer: null }), onfocus: () => tell({ pointer: null, keyboard: reasons }), onblur: () => tell({ keyboard: null }) };
    return element("button", { type: "button", class: "term", ...listen }, element("mark", { class: verdict }, shown));
  });
  return [element("p", { class: "said" }, cut), says];
}
