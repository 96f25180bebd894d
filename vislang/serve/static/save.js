// The examples as a file: a tar with examples.jsonl, which `vislang pack` reads, and the images.

/** Download the examples. Throws an Error if one cannot be saved. */
export function save(examples) {
  if (!examples.length) throw new Error("There are no examples to save. Add one.");
  const files = [];
  const records = examples.map(({ image, question, answer }, index) => {
    if (!image || !answer) throw new Error(`Example ${index + 1} has no ${image ? "answer" : "image"}.`);
    const [, kind, content] = image.url.match(/^data:image\/([\w.+-]+);base64,(.*)$/s);
    const name = `${index + 1}.${kind === "jpeg" ? "jpg" : kind}`;
    files.push({ name, bytes: Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)) });
    return JSON.stringify(question ? { image: name, question, answer } : { image: name, text: answer });
  });
  files.push({ name: "examples.jsonl", bytes: new TextEncoder().encode(`${records.join("\n")}\n`) });
  const url = URL.createObjectURL(new Blob(tar(files), { type: "application/x-tar" }));
  Object.assign(document.createElement("a"), { href: url, download: "examples.tar" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const BLOCK = 512;

/** The blocks of a tar (POSIX ustar) with these files; names are short and ASCII. */
function tar(files) {
  const blocks = [];
  for (const { name, bytes } of files) {
    const header = new Uint8Array(BLOCK);
    const put = (text, at) => new TextEncoder().encodeInto(text, header.subarray(at));
    const octal = (value, digits) => value.toString(8).padStart(digits, "0");
    put(name, 0);
    put(octal(0o644, 7), 100);
    put(octal(0, 7), 108);
    put(octal(0, 7), 116);
    put(octal(bytes.length, 11), 124);
    put(octal(Math.floor(Date.now() / 1000), 11), 136);
    put(" ".repeat(8), 148); // the checksum counts as spaces
    put("0", 156);
    put("ustar\u000000", 257);
    put(`${octal(header.reduce((sum, value) => sum + value, 0), 6)}\u0000 `, 148);
    blocks.push(header, bytes, new Uint8Array((BLOCK - (bytes.length % BLOCK)) % BLOCK));
  }
  return [...blocks, new Uint8Array(2 * BLOCK)];
}
