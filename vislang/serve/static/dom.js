// The document: elements by id, and new elements. Text only ever becomes text, never markup.

export const byId = (id) => document.getElementById(id);

/** A new element with these properties and children; a child that is a string becomes text. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A new SVG element with these attributes. */
export function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A copy of the first element of a template. */
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);

/** Call `dropped` with the images that are dropped on an element. */
export function takesImages(element, dropped) {
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  element.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.dataTransfer.files.length) dropped([...event.dataTransfer.files]);
  });
}
