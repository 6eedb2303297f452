// What every page does: ask the API, show a refusal in its own words, remember the key for this tab.
import { element } from "./elements.js";

const KEY = "bioverify-key";

export class Refused extends Error {}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The gateway does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) document.getElementById("key-dialog").showModal();
  const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
  throw new Refused(problem.detail);
}

export const askJson = async (path, options) => (await ask(path, options)).json();

export function say(text, kind = "") {
  const said = document.getElementById("said");
  said.textContent = text;
  said.className = kind;
}

// Runs something the person asked for; a refusal is said where they look, anything else is a fault of ours.
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message, "bad");
    return undefined;
  }
}

export async function fillRecipes(select, chosen) {
  const { recipes } = await askJson("v1/recipes");
  select.replaceChildren(...recipes.map((recipe) => element("option", { title: recipe.description }, recipe.name)));
  select.value = recipes.some((recipe) => recipe.name === chosen) ? chosen : "all";
  return recipes;
}

const here = location.pathname.split("/").pop() || "./";
for (const link of document.querySelectorAll("nav a")) if (link.getAttribute("href") === here) link.setAttribute("aria-current", "page");

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key-input");
document.getElementById("key-button").addEventListener("click", () => dialog.showModal());
dialog.addEventListener("close", () => {
  if (dialog.returnValue === "use" && input.value) sessionStorage.setItem(KEY, input.value.trim());
  else if (dialog.returnValue === "forget") sessionStorage.removeItem(KEY);
  else return;
  location.reload();
});
