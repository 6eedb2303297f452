// The report's page: curves and completions out of what stands in it. `report.py` puts the components of the web pages
// in front of this file, so that one file holds everything.
import { figuresOf } from "./curves.js";
import { sampleCard } from "./samples.js";

const { name, metrics, examples } = JSON.parse(document.getElementById("run").textContent);
const smoothing = document.getElementById("smoothing");
const draw = () => document.getElementById("curves").replaceChildren(figuresOf([{ name, metrics }], Number(smoothing.value)));
smoothing.addEventListener("input", draw);
draw();
if (examples.length) document.getElementById("examples").replaceChildren(...examples.map(sampleCard));
