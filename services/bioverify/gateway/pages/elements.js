// What every page is made of: elements whose text is text, and numbers as they are shown.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  // Text only ever becomes a text node: what a model wrote is shown, never run.
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export const label = (part) => (part.component ? `${part.verifier}.${part.component}` : part.verifier);
