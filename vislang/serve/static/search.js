// Search in an index: results as a gallery, and marks that correct the search.
import { call } from "./api.js";
import { byId, copyOf, make, takesImages } from "./dom.js";
import { makePicker } from "./picker.js";

const SHOWN = 24; // results
const SIDE = 320; // of a thumbnail, in pixels
const image = makePicker(byId("search-image"), "the search");
let indexes = [];
let searched = null; // the index and the query of the results that are shown
let running = false;

/** Show the search if the server has an index. */
export async function listIndexes() {
  indexes = (await call("/v1/indexes")).data;
  const options = indexes.map(({ id, images }) => make("option", { value: id }, `${id} (${images.toLocaleString("en")} images)`));
  byId("index").replaceChildren(...options);
  byId("search").hidden = !indexes.length;
  if (indexes.length) describe();
}

const index = () => indexes.find(({ id }) => id === byId("index").value);

/** Offer a text where the index can be searched by one. */
function describe() {
  byId("search-text-label").hidden = !index().queries.includes("text");
}

/** What the fields ask for. Throws an Error if it is not one thing. */
function query() {
  const text = index().queries.includes("text") ? byId("search-text").value.trim() : "";
  if (image.image && text) throw new Error("Search by a text or by an image: remove one of them.");
  if (!image.image && !text) throw new Error(index().queries.includes("text") ? "Write a text, or choose an image." : "Choose an image.");
  return image.image ? { image: image.image.url } : text;
}

/** Search for what is asked; `marks` are right, wrong and forget. */
async function search(asked, marks = {}) {
  if (running) return;
  running = true;
  byId("search-error").textContent = "";
  try {
    const reply = await call("/v1/search", { ...asked, ...marks, top_n: SHOWN, thumbnail: SIDE });
    searched = asked;
    show(reply);
  } catch (error) {
    byId("search-error").textContent = error.message;
  } finally {
    running = false;
  }
}

function show({ results, marks, ended, score_kind: kind }) {
  const corrected = marks ? `, corrected by ${marks} ${marks === 1 ? "mark" : "marks"}` : "";
  const end = ended ? " Nothing more here: by your marks, all other images are probably wrong." : "";
  byId("found-note").textContent = `${results.length} ${results.length === 1 ? "image" : "images"}${corrected}.${end}`;
  byId("forget").hidden = !marks;
  byId("found").replaceChildren(...results.map((result) => card(result, kind)));
}

function card({ name, score, mark, thumbnail }, kind) {
  const element = copyOf("result");
  const shown = element.querySelector("img");
  if (thumbnail) Object.assign(shown, { src: thumbnail, alt: name });
  else shown.replaceWith(make("p", {}, "This file can no longer be read."));
  element.querySelector(".facts").textContent = `${name}, ${kind} ${score.toFixed(2)}`;
  for (const side of ["right", "wrong"]) {
    const button = element.querySelector(`.${side}`);
    button.setAttribute("aria-pressed", String(mark === side));
    button.setAttribute("aria-label", `${name} is ${side}`);
    button.addEventListener("click", async () => {
      await search(searched, { [side]: [name] });
      // The results are new elements, so the focus is given to the same button of the same image, if it is still there.
      const again = [...byId("found").querySelectorAll(`.${side}`)].find((other) => other.getAttribute("aria-label") === `${name} is ${side}`);
      (again ?? byId("find")).focus();
    });
  }
  return element;
}

byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    search({ index: index().id, query: query() });
  } catch (error) {
    byId("search-error").textContent = error.message;
  }
});
byId("forget").addEventListener("click", async () => {
  await search(searched, { forget: true });
  byId("find").focus();
});
byId("index").addEventListener("change", describe);
takesImages(byId("search"), ([file]) => image.load(file));
