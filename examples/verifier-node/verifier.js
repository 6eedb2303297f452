// Does the completion say rightly which amino acid a tRNA synthetase charges?
//
// Five synthetases and their amino acids stand in facts.csv. Of each that the question names, the sentences of the
// completion that name it are read for amino acids. Value: 1 where only the right one is named, 0.5 where others are
// named beside it, 0 where only others are named or none is; the mean where the question names several synthetases.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const VERSION = "1";
const TABLE = readFileSync(new URL("facts.csv", import.meta.url));
const DIGEST = createHash("sha256").update(TABLE).digest("hex");
const FACTS = new Map();
for (const line of TABLE.toString().trim().split("\n").slice(1)) {
  const [gene, alias, aminoAcid] = line.split(",");
  for (const name of [gene, alias]) FACTS.set(name, { names: [gene, alias], aminoAcid });
}

// As a noun and as in "alanyl-tRNA synthetase".
const AMINO_ACIDS = new Map([
  ["alanine", "alanyl"], ["arginine", "arginyl"], ["asparagine", "asparaginyl"], ["aspartate", "aspartyl"],
  ["cysteine", "cysteinyl"], ["glutamate", "glutamyl"], ["glutamine", "glutaminyl"], ["glycine", "glycyl"],
  ["histidine", "histidyl"], ["isoleucine", "isoleucyl"], ["leucine", "leucyl"], ["lysine", "lysyl"],
  ["methionine", "methionyl"], ["phenylalanine", "phenylalanyl"], ["proline", "prolyl"], ["serine", "seryl"],
  ["threonine", "threonyl"], ["tryptophan", "tryptophanyl"], ["tyrosine", "tyrosyl"], ["valine", "valyl"],
]);
const NOUN_OF = new Map([...AMINO_ACIDS].flatMap(([noun, adjective]) => [[noun, noun], [adjective, noun]]));
const ANY_AMINO_ACID = new RegExp(`\\b(${[...NOUN_OF.keys()].join("|")})\\b`, "gi");

const KINDS = ["differential_expression", "direction_of_change", "gene_annotation"];

export const description = {
  name: "charged_amino_acid",
  version: VERSION,
  // Whatever may change a result changes it: the code by its version, the table by its digest.
  fingerprint: createHash("sha256").update(JSON.stringify([VERSION, DIGEST])).digest("hex").slice(0, 32),
  task_kinds: KINDS.map((kind) => `TASK_KIND_${kind.toUpperCase()}`),
  reads: ["READ_FIELD_TASK", "READ_FIELD_COMPLETION"],
  deterministic: true,
  idempotent: true,
  holds_belief: false,
  limits: { max_items: 1024, max_bytes: 8 * 2 ** 20, max_items_in_flight: 4096 },
  artifacts: [
    {
      name: "charged-amino-acid-facts",
      digest: `sha256:${DIGEST}`,
      simulated: false,
      license: "CC0-1.0",
      sources: ["Textbook knowledge: the names of the enzymes"],
    },
  ],
  components: { named: "Amino acids named in sentences about the synthetases, from 0 to 20 each." },
  summary: "Whether the completion says rightly which amino acid a tRNA synthetase charges.",
};

// What the contract calls an outcome, without the item's id.
export function score(item, withEvidence) {
  if (!item.task) {
    return notApplicable("unrecognised_question", "The item has no task, and this verifier reads none off prompts.");
  }
  if (!KINDS.includes(item.task.kind)) {
    return notApplicable("other_task_kind", `The question is about ${item.task.kind}; this verifier answers ${KINDS.join(", ")}.`);
  }
  const asked = new Set(genesOf(item.task).map((gene) => FACTS.get(gene)).filter(Boolean));
  if (asked.size === 0) {
    return notApplicable("no_known_synthetase", `None of ${genesOf(item.task).join(", ")} is in the table.`);
  }
  const judged = [...asked].map((fact) => judge(fact, item.completion));
  const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);
  return {
    result: "scored",
    scored: {
      value: sum(judged.map(({ value }) => value)) / judged.length,
      components: { named: sum(judged.map(({ named }) => named.length)) },
      evidence: withEvidence ? judged.map(({ text }) => ({ text, source: "facts.csv", simulated: false })) : [],
    },
  };
}

function genesOf({ kind, [kind]: question }) {
  return kind === "gene_annotation" ? question.genes : [question.perturbation, question.measured_gene];
}

function judge({ names, aminoAcid }, completion) {
  const about = new RegExp(`(?<![\\w-])(${names.join("|")})(?![\\w-])`);
  const sentences = completion.split(/[.!?\n]+/).filter((sentence) => about.test(sentence));
  const words = sentences.flatMap((sentence) => sentence.match(ANY_AMINO_ACID) ?? []);
  const named = [...new Set(words.map((word) => NOUN_OF.get(word.toLowerCase())))];
  const isRight = named.includes(aminoAcid);
  const said = named.length ? `the completion names ${named.join(", ")}` : "the completion names no amino acid beside it";
  return { named, value: isRight ? (named.length === 1 ? 1 : 0.5) : 0, text: `${names[0]} charges ${aminoAcid}; ${said}` };
}

function notApplicable(reason, detail) {
  return { result: "not_applicable", not_applicable: { reason, detail } };
}
