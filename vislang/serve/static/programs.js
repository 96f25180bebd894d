// A request as a program: a curl line, and Python with OpenAI's client. Neither contains the token.

/** The request as a command of a POSIX shell. */
export function asCurl(path, body, withToken) {
  const token = withToken ? ` -H "Authorization: Bearer $VISLANG_TOKEN"` : "";
  // The quotes around the word keep the shell from reading anything in the body.
  return `curl ${location.origin}${path} -H 'Content-Type: application/json'${token} -d @- <<'END'\n${JSON.stringify(body)}\nEND\n`;
}

/** The request as a Python program. */
export function asPython(path, body, withToken) {
  const key = withToken ? `os.environ["VISLANG_TOKEN"]` : `"none"`;
  const head = `${withToken ? "import os\n\n" : ""}import openai\n\nrequest = ${literal(body)}\n`
    + `client = openai.OpenAI(base_url="${location.origin}/v1", api_key=${key})\n`;
  if (!body.stream) return `${head}print(client.post("${path.replace("/v1", "")}", body=request, cast_to=object))\n`;
  return `${head}for chunk in client.chat.completions.create(**request):\n    for choice in chunk.choices:\n`
    + `        print(choice.delta.content or "", end="", flush=True)\nprint()\n`;
}

/** A value of JSON as Python writes it. A string of JSON is one of Python. */
function literal(value, indent = "") {
  const inner = `${indent}    `;
  const lines = (open, items, close) => `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
  if (Array.isArray(value)) return lines("[", value.map((item) => literal(item, inner)), "]");
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  return lines("{", Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`), "}");
}

/** Put a text on the clipboard. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that are not from this machine and not encrypted have no clipboard, but may copy what is selected.
  const field = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
