// The page: what is asked of which model, and what came back.
import { call, hasToken, stream } from "./api.js";
import { examples, say } from "./cards.js";
import { byId, make, takesImages } from "./dom.js";
import { attention, boxes, coAttention, effects, gates, ranked } from "./drawing.js";
import { makePicker } from "./picker.js";
import { asCurl, asPython, copy } from "./programs.js";
import { save } from "./save.js";
import { listReports } from "./reports.js";
import { listIndexes } from "./search.js";

const BOXES = 5; // that are shown
const query = makePicker(byId("query-image"), "the question");
let models = [];
let last = null; // the request that was sent: {path, body}
let running = null; // its AbortController, until the reply is complete

// Models

async function listModels() {
  models = (await call("/v1/models")).data;
  byId("model").replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  for (const id of ["model-label", "examples", "query"]) byId(id).hidden = !models.length;
  if (models.length) describe();
}

const model = () => models.find(({ id }) => id === byId("model").value);

/** Show what the model can do. */
function describe() {
  const { architecture, abilities, generates, heads } = model();
  const can = (name) => abilities.includes(name);
  const answering = Object.keys(heads).filter((name) => heads[name] !== "box");
  const others = Object.keys(heads).length ? "answers with a head" : "chooses among given answers";
  const abilitiesInWords = [
    can("answer") && (generates ? "writes an answer after examples, ranks given answers" : others),
    can("explain") && "shows its attention",
    can("ground") && "finds boxes",
    can("embeddings") && "makes vectors (in the API)",
  ].filter(Boolean);
  byId("can").textContent = `${architecture}: ${abilitiesInWords.join(", ")}.`;
  byId("head").replaceChildren(...answering.map((name) => make("option", { value: name }, `${name} (${heads[name]})`)));
  byId("head-label").hidden = answering.length < 2;
  byId("examples").hidden = !generates;
  byId("ask").disabled = !can("answer");
  byId("explain").hidden = !can("explain");
  byId("ground").hidden = !can("ground");
}

// Requests

const cards = () => (model().generates ? examples() : []);
const options = () => byId("options").value.split(",").map((option) => option.trim()).filter(Boolean);
const question = () => byId("question").value.trim();

function contentOf(image, text) {
  const parts = [];
  if (image) parts.push({ type: "image_url", image_url: { url: image.url } });
  if (text) parts.push({ type: "text", text });
  return parts;
}

/** The fields that all requests have. Throws an Error if something is missing. */
function conversation() {
  const messages = cards().flatMap(({ image, question: text, answer }, index) => {
    if (!image && !text) throw new Error(`Example ${index + 1} has no image and no question. Fill it in, or remove it.`);
    if (!answer) throw new Error(`Example ${index + 1} has no answer. Write one, or remove the example.`);
    return [{ role: "user", content: contentOf(image, text) }, { role: "assistant", content: answer }];
  });
  if (!query.image && !question()) throw new Error("Choose an image, or write a question.");
  messages.push({ role: "user", content: contentOf(query.image, question()) });
  return { model: model().id, messages };
}

const withHead = (body) => (byId("head").value ? { ...body, head: byId("head").value } : body);

async function ask(signal) {
  const body = withHead(conversation());
  if (!model().generates || options().length) {
    const reply = await send("/v1/answer", options().length ? { ...body, options: options() } : body, signal);
    showAnswer(reply.answer);
    byId("ranked").replaceChildren(...(reply.candidates.length ? ranked(reply) : []));
    return;
  }
  last = { path: "/v1/chat/completions", body: { ...body, stream: true, stream_options: { include_usage: true } } };
  const started = performance.now();
  let [first, usage, finish] = [null, null, null];
  showAnswer("");
  byId("text").setAttribute("aria-busy", "true");
  try {
    for await (const chunk of stream(last.path, last.body, signal)) {
      usage = chunk.usage ?? usage;
      for (const { delta, finish_reason: reason } of chunk.choices) {
        if (delta.content) first ??= performance.now() - started;
        byId("text").textContent += delta.content ?? "";
        finish = reason ?? finish;
      }
    }
  } finally {
    byId("text").setAttribute("aria-busy", "false");
  }
  const cut = finish === "length" ? ", cut off at the greatest length" : "";
  const seconds = first === null ? "" : `; the first token after ${(first / 1000).toFixed(2)} s`;
  byId("facts").textContent = `${usage.completion_tokens} tokens after a prompt of ${usage.prompt_tokens}${seconds}${cut}`;
}

async function explain(signal) {
  const body = withHead(conversation());
  const shown = cards();
  const leaveOut = shown.length ? { leave_out: true } : {};
  const pictures = [...shown, { image: query.image }].map(({ image }, index) => [image, index < shown.length ? `example ${index + 1}` : "question"]);
  const seen = pictures.filter(([image]) => image);
  const picture = query.image;
  const reply = await send("/v1/explain", { ...body, ...leaveOut }, signal);
  showAnswer(reply.answer);
  const parts = reply.tokens
    ? attention(reply.tokens, seen.map(([image]) => image), seen.map(([, name]) => name))
    : coAttention(reply, picture);
  if (reply.changes) parts.push(...effects(reply, shown));
  if (reply.gates) parts.push(gates(reply.gates));
  show("Attention", make("p", {}, "What was attended to. It does not say why the answer was given."), ...parts);
}

async function ground(signal) {
  const body = conversation();
  const [picture, text] = [query.image, question()];
  const reply = await send("/v1/ground", { ...body, top_n: BOXES }, signal);
  byId("answer").hidden = false;
  byId("text").textContent = `${reply.boxes.length} boxes`;
  show("Boxes", boxes(reply, picture, text));
}

function send(path, body, signal) {
  last = { path, body };
  return call(path, body, signal);
}

/** Do one of the actions: its answer is shown, and its error beside the buttons. */
async function run(action) {
  if (running) return; // buttons stay enabled, because one that is disabled loses the focus
  running = new AbortController();
  for (const id of ["error", "text", "facts", "copied"]) byId(id).textContent = "";
  for (const id of ["ranked", "drawing"]) byId(id).replaceChildren();
  byId("answer").hidden = byId("shown").hidden = true;
  byId("stop").hidden = false;
  try {
    if (!models.length) await listModels();
    await action(running.signal);
  } catch (error) {
    byId("error").textContent = error.name === "AbortError" ? "Stopped." : error.message;
  } finally {
    byId("stop").hidden = true;
    running = null;
  }
}

// Replies

function showAnswer(answer) {
  byId("answer").hidden = false;
  byId("text").textContent = typeof answer === "object" ? "a box" : String(answer);
}

function show(title, ...parts) {
  byId("shown-title").textContent = title;
  byId("drawing").replaceChildren(...parts);
  byId("shown").hidden = false;
}

async function copied(program) {
  await copy(program(last.path, last.body, hasToken()));
  byId("copied").textContent = hasToken() ? "Copied. It reads the token from VISLANG_TOKEN." : "Copied.";
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(ask);
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("form").requestSubmit();
  }
});
byId("explain").addEventListener("click", () => run(explain));
byId("ground").addEventListener("click", () => run(ground));
byId("stop").addEventListener("click", () => running?.abort());
byId("curl").addEventListener("click", () => copied(asCurl));
byId("python").addEventListener("click", () => copied(asPython));
byId("model").addEventListener("change", describe);
byId("save").addEventListener("click", () => {
  try {
    save(examples());
    say("Unpack examples.tar; then vislang pack MODEL examples.jsonl makes a pack of it.");
  } catch (error) {
    say(error.message);
  }
});
takesImages(byId("query"), ([file]) => query.load(file));
// A file that is dropped beside the fields must not replace the page.
takesImages(document.body, () => {});
listModels().then(listIndexes).then(listReports).catch((error) => {
  byId("error").textContent = error.message;
});
