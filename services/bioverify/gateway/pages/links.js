// Where a reader looks further: genes, terms and papers that a text names, as links.
import { element } from "./elements.js";

const NAMED = /(GO:\d{7}|PMID:\d+|PerturbQA)/;
const ADDRESSES = [
  [/^GO:/, (name) => `https://www.ebi.ac.uk/QuickGO/term/${name}`],
  [/^PMID:/, (name) => `https://pubmed.ncbi.nlm.nih.gov/${name.slice(5)}/`],
  [/^PerturbQA$/, () => "https://arxiv.org/abs/2502.21290"],
];
// A reader comes back to the card; the page there is told nothing of this one.
const out = (href, ...text) => element("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...text);

export function linked(text) {
  return text.split(NAMED).map((piece) => {
    const found = ADDRESSES.find(([pattern]) => pattern.test(piece) && NAMED.test(piece));
    return found ? out(found[1](piece), piece) : piece;
  });
}

const GENE_PAGES = {
  "NCBI Gene": (name) => `https://www.ncbi.nlm.nih.gov/gene/?term=${name}%5Bsym%5D+AND+human%5Borgn%5D`,
  UniProt: (name) => `https://www.uniprot.org/uniprotkb?query=gene_exact:${name}+AND+organism_id:9606`,
  Ensembl: (name) => `https://www.ensembl.org/Homo_sapiens/Gene/Summary?g=${name}`,
};

export function geneLinks(names) {
  return element("ul", { class: "plain genes" }, names.map((name) => element("li", {}, element("b", {}, name), ...Object.entries(GENE_PAGES).flatMap(([site, address]) => [" · ", element("a", { href: address(encodeURIComponent(name)), target: "_blank", rel: "noopener noreferrer", "aria-label": `${name} at ${site}` }, site)]))));
}

// The page with the form, with these texts in it: they stand behind the #, which is sent nowhere.
export function toForm(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  return `./#${encodeURIComponent(btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")))}`;
}
