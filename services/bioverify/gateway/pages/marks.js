// Which words of a text a verifier's evidence names, and the text with them marked.
const MATCHED = /matched: (.*)$/;

export function matchedTerms(parts) {
  const terms = new Set();
  for (const part of parts)
    for (const evidence of part.evidence) {
      const found = evidence.text.match(MATCHED);
      if (found) for (const term of found[1].split(/; |, /)) if (term.trim().length > 2) terms.add(term.trim().replace(/[.…]+$/, ""));
    }
  return [...terms].sort((one, other) => other.length - one.length);
}

// A list of strings and <mark> elements that spells the text.
export function marked(text, terms) {
  if (!terms.length) return [text];
  const escaped = terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pieces = text.split(new RegExp(`(${escaped.join("|")})`, "gi"));
  return pieces.map((piece, index) => {
    if (index % 2 === 0) return piece;
    const mark = document.createElement("mark");
    mark.textContent = piece;
    return mark;
  });
}
