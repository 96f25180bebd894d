// A field for one image: dropped, or chosen from a file.
import { byId, takesImages } from "./dom.js";

const SENT = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]; // that the server reads
const BYTES = 1_000_000; // of a file that is sent as it is; other files are scaled down
const SIDE = 1024; // longer side of an image that was scaled down, in pixels

/** Fill `root` with an image field called `name`. Its `image` is {url, width, height}, or null. */
export function makePicker(root, name) {
  root.append(byId("picker").content.cloneNode(true));
  const [drop, clear, message] = [".drop", ".clear", ".message"].map((part) => root.querySelector(part));
  const [hint, shown, input] = ["span", "img", "input"].map((part) => drop.querySelector(part));
  const picker = {
    image: null,
    set name(value) {
      input.setAttribute("aria-label", `Image of ${value}`);
      clear.setAttribute("aria-label", `Remove the image of ${value}`);
    },
    show(image) {
      picker.image = image;
      if (image) shown.src = image.url;
      shown.hidden = clear.hidden = !image;
      hint.hidden = Boolean(image);
      drop.classList.toggle("filled", Boolean(image));
      message.textContent = image?.scaled ? `scaled to ${image.width} × ${image.height} pixels` : "";
    },
    async load(file) {
      try {
        picker.show(await readImage(file));
      } catch (error) {
        message.textContent = error.message;
      }
    },
  };
  picker.name = name;
  input.addEventListener("change", () => {
    if (input.files.length) picker.load(input.files[0]);
    input.value = "";
  });
  clear.addEventListener("click", () => {
    picker.show(null);
    input.focus();
  });
  takesImages(drop, ([file]) => picker.load(file));
  return picker;
}

async function readImage(file) {
  const url = await new Promise((read, failed) => {
    const reader = new FileReader();
    reader.onload = () => read(reader.result);
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error(`${file.name} is not an image that this browser can show.`);
  }
  const [width, height] = [image.naturalWidth || SIDE, image.naturalHeight || SIDE];
  if (SENT.includes(file.type) && file.size <= BYTES) return { url, width, height };
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return { url: canvas.toDataURL("image/jpeg", 0.92), width: canvas.width, height: canvas.height, scaled: true };
}
