// Requests to the server. An error that the reader should see is an Error whose message is a sentence.
import { byId } from "./dom.js";

const TOKEN = "vislang-token";

/** The reply to a request, as JSON. */
export async function call(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** The server-sent events of a reply. */
export async function* stream(path, body, signal) {
  const reader = (await send(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The connection ended before the answer was complete. Ask again.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

/** Whether requests carry a token. */
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

async function send(path, body, signal) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json" }) };
    let reply;
    try {
      reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server cannot be reached. Is it still running?");
    }
    if (reply.ok) return reply;
    if (reply.status !== 401) throw new Error(await reasonOf(reply));
    await askForToken(token ? "The server did not accept this token." : "");
  }
}

async function reasonOf(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `The server answered with status ${reply.status}.`;
  }
}

function askForToken(message) {
  const dialog = byId("token-dialog");
  byId("token-message").textContent = message;
  byId("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((given, failed) => {
    dialog.addEventListener("close", () => {
      const token = byId("token").value.trim();
      // Header values are ASCII, and so are the server's tokens.
      if (dialog.returnValue === "given" && /^[!-~]+$/.test(token)) {
        sessionStorage.setItem(TOKEN, token);
        given();
      } else {
        failed(new Error("This server needs a token. Ask again to give it."));
      }
    }, { once: true });
  });
}
