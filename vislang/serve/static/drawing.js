// What a reply says, drawn: values as bars, attention over images and words, boxes.
import { drawn, make } from "./dom.js";

const OPACITY = 0.8; // of full colour
const FULL = 4; // how many times an equal share of the attention has full colour
const HUE = [216, 27, 96]; // of attention, as in the page's style

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A list of {name, share, value}: bars of the length `share`, from 0 to 1, or from -1 to 1 if `signed`. */
export function bars(rows, signed = false) {
  return make("ul", { className: "bars" }, ...rows.map(({ name, share, value }) =>
    make("li", {}, make("span", { className: "name" }, name), bar(share, signed), make("span", { className: "value" }, value))));
}

function bar(share, signed) {
  const part = make("i", { className: signed ? (share < 0 ? "minus" : "plus") : "" });
  part.style.width = `${Math.min(100, Math.abs(share) * (signed ? 50 : 100))}%`;
  const whole = make("span", { className: signed ? "bar signed" : "bar" }, part);
  whole.setAttribute("aria-hidden", "true"); // the value beside it says the same
  return whole;
}

/** The alternatives of an answer, the best first. */
export function ranked({ candidates, score_kind: kind }) {
  const shown = candidates.slice(0, 10);
  const scores = candidates.map((candidate) => candidate.score);
  const [best, least] = [Math.max(...scores), Math.min(...scores)];
  const sum = scores.reduce((total, score) => total + Math.exp(score - best), 0);
  const row = ({ answer, score }) => {
    const name = String(answer);
    if (kind === "probability") return { name, share: score, value: percent(score) };
    if (kind === "similarity") return { name, share: (score - least) / (best - least || 1), value: score.toFixed(3) };
    const share = Math.exp(score - best) / sum;
    return { name, share, value: `${percent(share)} (${score.toFixed(2)} nats)` };
  };
  const notes = {
    probability: "The model's probability of each answer.",
    similarity: "The similarity of the image and each answer.",
    log_likelihood: "The probability of each answer among those given, and its log-likelihood.",
  };
  const more = candidates.length > shown.length ? ` The ${shown.length} best of ${candidates.length}.` : "";
  return [make("p", { className: "facts" }, (notes[kind] ?? "") + more), bars(shown.map(row))];
}

/** A Flamingo's attention: the images of a prompt under the attention of the token that is chosen. */
export function attention(tokens, images, names) {
  if (!tokens.length || !images.length) return [make("p", {}, "There is no attention to show: the prompt has no image, or the answer is empty.")];
  // A pack's images come before those of the request.
  const packed = tokens[0].maps.length - images.length;
  const strip = make("div", { className: "strip" });
  const draw = (index) => {
    const maps = tokens[index].maps;
    const total = maps.flat(2).reduce((sum, value) => sum + value, 0) || 1;
    strip.replaceChildren(...images.map((image, number) => {
      const grid = maps[packed + number];
      const share = grid.flat().reduce((sum, value) => sum + value, 0) / total;
      return figure(image, [heat(grid)], names[number], `${percent(share)} of the token's attention`, true);
    }));
  };
  const pack = packed > 0 ? [make("p", {}, `The pack's ${packed} image${packed > 1 ? "s are" : " is"} not shown.`)] : [];
  return [choice("Token of the answer", tokens.map((own) => own.token), draw), strip, ...pack, scale()];
}

/** A ViLBERT's co-attention: the regions of an image under the attention of the word and the layer that are chosen. */
export function coAttention({ words, regions, layers }, image) {
  const strip = make("div", { className: "strip" });
  const chosen = { word: 0, layer: 0 };
  const draw = () => {
    const row = layers[chosen.layer].text_to_regions[chosen.word];
    const strength = emphasis(row);
    // The first region is the whole image.
    const boxes = regions.slice(1).map((box, number) =>
      rectangle(box, { fill: `rgb(${HUE})`, "fill-opacity": OPACITY * strength[number + 1] }));
    strip.replaceChildren(figure(image, [layerOf(image, boxes)], words[chosen.word], `${percent(row[0])} of the attention is on the image as a whole`, true, true));
  };
  const set = (name) => (index) => {
    chosen[name] = index;
    draw();
  };
  return [
    choice("Layer", layers.map((_, index) => String(index + 1)), set("layer")),
    choice("Word of the question", words, set("word")), strip, scale(),
  ];
}

/** The gates of a Flamingo's layers. */
export function gates(layers) {
  const of = (part) => bars(layers.map((own) => ({ name: `layer ${own.layer}`, share: own[part], value: own[part].toFixed(3) })), true);
  return make("div", { className: "beside" },
    make("div", {}, make("h3", {}, "Gates of the cross-attention"), of("attention")),
    make("div", {}, make("h3", {}, "Gates of the feed-forward layers after it"), of("feed_forward")));
}

/** What leaving out each example changes. */
export function effects({ changes, change_of_all: all }, examples) {
  const nats = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)} nats`;
  // Half of a bar is at least 0.1 nats, so that changes of almost nothing look like it.
  const most = Math.max(...changes.map(Math.abs), 0.1);
  return [
    make("h3", {}, "What each example changed"),
    make("p", {}, `The log-likelihood of the answer with all examples, minus that without this one. To the right, the example made the answer more likely. All examples together changed it by ${nats(all)}.`),
    make("ol", { className: "effects" }, ...examples.map(({ image, question, answer }, index) =>
      make("li", { className: "card" }, ...(image ? [make("img", { src: image.url, alt: "" })] : []),
        make("b", {}, `${index + 1}. ${question} ${answer}`), bar(changes[index] / most, true), make("span", {}, nats(changes[index]))))),
  ];
}

/** The boxes of a referring expression, the best one emphasised. */
export function boxes(reply, image, text) {
  const side = Math.max(reply.width, reply.height);
  const shapes = reply.boxes.flatMap(({ box }, index) => {
    const best = index === 0;
    const stroke = rectangle(box, { fill: "none", stroke: best ? "#b3261e" : "#1c2733", "stroke-opacity": best ? 1 : 0.55, "stroke-width": side / (best ? 100 : 250) });
    const label = drawn("text", { x: box.left + side / 80, y: box.top + side / 18, "font-size": side / 20, "font-weight": 700, fill: best ? "#b3261e" : "#1c2733", stroke: "#fff", "stroke-width": side / 120, "paint-order": "stroke" });
    label.textContent = String(index + 1);
    return [stroke, label];
  }).reverse();
  const rows = reply.boxes.map(({ score }, index) => ({ name: `box ${index + 1}`, share: score, value: score.toFixed(3) }));
  return make("div", { className: "beside" },
    figure(image, [layerOf(reply, shapes)], text, "the best box is red", false, true),
    make("div", {}, make("h3", {}, "Scores"), bars(rows)));
}

/** How much colour each value has: 0 for an equal share or less, 1 for four times that and more. */
function emphasis(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length || 1;
  return values.map((value) => Math.min(1, Math.max(0, (value / mean - 1) / (FULL - 1))));
}

/** A map over an image as a canvas of one pixel a cell; the browser interpolates when it enlarges it. */
function heat(grid) {
  const canvas = make("canvas", { width: grid[0].length, height: grid.length });
  const pixels = new ImageData(canvas.width, canvas.height);
  emphasis(grid.flat()).forEach((strength, cell) => pixels.data.set([...HUE, 255 * OPACITY * strength], 4 * cell));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

const rectangle = ({ left, top, right, bottom }, look) => drawn("rect", { x: left, y: top, width: right - left, height: bottom - top, ...look });

function layerOf({ width, height }, shapes) {
  const layer = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
  layer.append(...shapes);
  return layer;
}

function figure(image, layers, title, note, pale, large = false) {
  const picture = make("div", { className: pale ? "picture pale" : "picture" }, make("img", { src: image.url, alt: "" }), ...layers);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${title}: ${note}`);
  return make("figure", { className: large ? "large" : "" }, picture, make("figcaption", {}, make("b", {}, title), note));
}

/** A row of radio buttons; `chosen` is called with the index of the one that is chosen, and at once with the first. */
function choice(title, options, chosen) {
  const name = `choice-${title}`;
  const buttons = options.map((option, index) => {
    const input = make("input", { type: "radio", name, checked: index === 0 });
    input.addEventListener("change", () => chosen(index));
    return make("label", {}, input, option.trim() || "␣");
  });
  queueMicrotask(() => chosen(0));
  return make("fieldset", { className: "tokens" }, make("legend", {}, title), ...buttons);
}

const scale = () => make("p", { className: "scale" }, make("span", {}, "equal share of the attention or less"), make("span", { className: "ramp" }), make("span", {}, "four times that or more"));
