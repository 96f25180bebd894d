// The examples: a list of cards, each with an image, a question and an answer, in the order of the prompt.
import { byId, copyOf, takesImages } from "./dom.js";
import { makePicker } from "./picker.js";

const list = byId("cards");
const cards = new Map(); // by their elements; their order is that of the elements
let dragged = null;

/** The examples in their order: {image, question, answer}. */
export const examples = () => inOrder().map((card) => ({
  image: card.picker.image,
  question: card.question.value.trim(),
  answer: card.answer.value.trim(),
}));

/** Add an empty card, with the question of the last one. */
export function addCard() {
  const element = copyOf("card");
  const card = {
    element,
    picker: makePicker(element.querySelector(".picker"), ""),
    question: element.querySelector(".question"),
    answer: element.querySelector(".answer"),
  };
  card.question.value = inOrder().at(-1)?.question.value ?? "";
  cards.set(element, card);
  list.append(element);
  const on = (part, action) => element.querySelector(part).addEventListener("click", (event) => action(event.currentTarget));
  on(".earlier", (button) => move(element, -1, button));
  on(".later", (button) => move(element, 1, button));
  on(".remove", () => remove(element));
  const handle = element.querySelector(".handle");
  handle.addEventListener("dragstart", (event) => {
    dragged = element;
    event.dataTransfer.setData("text/plain", "");
    event.dataTransfer.setDragImage(element, 10, 10);
    element.classList.add("dragged");
  });
  handle.addEventListener("dragend", () => {
    dragged?.classList.remove("dragged");
    dragged = null;
  });
  number();
  return card;
}

/** Add a card for each image file. */
export function addImages(files) {
  for (const file of files) addCard().picker.load(file);
}

export function say(message) {
  byId("cards-message").textContent = message;
}

const inOrder = () => [...list.children].map((element) => cards.get(element));
const indexOf = (element) => [...list.children].indexOf(element);

function move(element, by, button) {
  const to = indexOf(element) + by;
  if (to < 0 || to >= list.children.length) {
    say(by < 0 ? "This example is the first." : "This example is the last.");
    return;
  }
  const other = list.children[to];
  if (by < 0) other.before(element);
  else other.after(element);
  number();
  button.focus(); // an element that moves loses the focus
  say(`The example is now number ${to + 1} of ${list.children.length}.`);
}

function remove(element) {
  const index = indexOf(element);
  cards.delete(element);
  element.remove();
  number();
  (list.children[Math.min(index, list.children.length - 1)]?.querySelector(".remove") ?? byId("add")).focus();
  say(`Example ${index + 1} was removed.`);
}

/** Give each card the number of its position, by which a screen reader names its fields. */
function number() {
  inOrder().forEach((card, index) => {
    const name = `example ${index + 1}`;
    card.element.querySelector(".number").textContent = `Example ${index + 1}`;
    card.element.setAttribute("aria-label", name);
    card.picker.name = name;
    const label = (part, text) => card.element.querySelector(part).setAttribute("aria-label", text);
    label(".question", `Question of ${name}`);
    label(".answer", `Answer of ${name}`);
    label(".earlier", `Move ${name} earlier`);
    label(".later", `Move ${name} later`);
    label(".remove", `Remove ${name}`);
  });
}

list.addEventListener("dragover", (event) => {
  const target = event.target.closest(".card");
  if (!dragged || !target) return;
  event.preventDefault();
  if (target === dragged) return;
  if (indexOf(target) < indexOf(dragged)) target.before(dragged);
  else target.after(dragged);
  number();
});
list.addEventListener("drop", (event) => {
  if (!dragged) return;
  event.preventDefault();
  say(`The example is now number ${indexOf(dragged) + 1} of ${list.children.length}.`);
});
takesImages(byId("examples"), addImages);
byId("add").addEventListener("click", () => addCard().element.querySelector("input").focus());
byId("add-images").addEventListener("change", (event) => {
  addImages([...event.target.files]);
  event.target.value = "";
});
