// The page of `gcnet serve`: sends a picture to the service, and draws over it what comes back.
"use strict";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const LEAST = $("threshold")?.min; // what is asked for, once; then it is only shown or not
const SMALLEST_PNG = 960; // pixels of the long side: names are to be read on a small picture too

let picture = null; // { name, blob, bitmap }
let answer = null; // of the service
let attention = null; // of the service, when a block is first looked at
let selected = null; // one of answer.detections
let current = null; // aborts what is asked for the picture before

const touch = navigator.maxTouchPoints > 0; // a telephone: nothing to drop, but a camera
$("camera").parentElement.hidden = !touch;
if (touch) $("hint").textContent = "Choose a picture, or take a photograph";

// Pictures come in ------------------------------------------------------------------------------------------

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that the same file can be chosen again
    if (file) look(file);
  });
}

document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) look(file);
  else problem("What was pasted is no picture. Copy a picture itself, not its address or its file name.");
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) look(file);
  else problem("That was no file. Save the picture first, or copy and paste it.");
});

async function look(file) {
  current?.abort();
  const mine = (current = new AbortController());
  problem("");
  $("result").hidden = true;
  const name = file.name || "picture";
  if (file.size > model.most) {
    problem(`${name} has ${megabytes(file.size)}; this service takes up to ${megabytes(model.most)}.`);
    return;
  }
  busy(`Looking at ${name} (${megabytes(file.size)}) ...`);
  try {
    const options = model.classifier ? { top: 10 } : { score_threshold: LEAST, masks: model.masks ? "polygon" : "none" };
    const found = await (await ask("predict", file, options, mine.signal)).json();
    const bitmap = await decode(file, mine.signal);
    [picture, answer, attention, selected] = [{ name, blob: file, bitmap }, found, null, null];
    show();
  } catch (error) {
    if (!mine.signal.aborted) problem(error.message);
  } finally {
    if (current === mine) busy("");
  }
}

// The service -----------------------------------------------------------------------------------------------

async function ask(path, blob, options, signal) {
  const form = new FormData();
  form.append("image", blob, "image");
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      response = await fetch(path, { method: "POST", body: form, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Error("The service does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 429 && attempt < 20) {
      busy("Others are before you; waiting ...");
      await new Promise((resolve) => setTimeout(resolve, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
      signal.throwIfAborted();
      continue;
    }
    const { detail } = await response.json().catch(() => ({}));
    throw new Error(sentence(detail || `The service answers ${response.status}.`));
  }
}

// A browser does not know all formats that the service does: then that draws it, with nothing on it.
async function decode(blob, signal) {
  try {
    return await createImageBitmap(blob);
  } catch {
    if (model.classifier) return null;
    const plain = await ask("draw", blob, { score_threshold: 1 }, signal);
    return createImageBitmap(await plain.blob());
  }
}

// What is shown ---------------------------------------------------------------------------------------------

function show() {
  $("drop").classList.add("small");
  $("hint").textContent = touch ? "Another one:" : "Another one: drop or paste it, or";
  $("result").hidden = false;
  $("stage").hidden = $("save-png").hidden = !picture.bitmap;
  const size = picture.bitmap ? `, ${picture.bitmap.width} x ${picture.bitmap.height}` : "";
  $("caption").textContent = picture.name + size;
  $("canvas").setAttribute("aria-label", picture.name);
  if (model.classifier) {
    showClasses();
    say(`${picture.name}: ${answer.classes[0].class_name}, ${percent(answer.classes[0].probability)}.`);
  } else {
    listClasses();
    const off = document.querySelector("#blocks input[value='']");
    if (off) off.checked = true;
    update();
  }
  redraw();
}

function showClasses() {
  $("classes-found").replaceChildren(
    ...answer.classes.map((one) => {
      const line = make("div", {}, make("span", {}, one.class_name), make("b", {}, percent(one.probability)));
      return make("li", {}, line, make("meter", { value: one.probability, "aria-hidden": "true" }));
    }),
  );
}

function listClasses() {
  const labels = [...new Set(answer.detections.map((one) => one.label))].sort((a, b) => a - b);
  $("classes").hidden = !labels.length;
  $("class-list").replaceChildren(
    ...labels.map((label) => {
      const box = make("input", { type: "checkbox", checked: "", "data-label": label });
      box.addEventListener("change", update);
      return make("label", { class: "chip" }, box, swatch(label), model.classes[label], make("span", {}));
    }),
  );
}

function shown() {
  const least = Number($("threshold").value);
  const on = new Set([...document.querySelectorAll("#class-list :checked")].map((box) => Number(box.dataset.label)));
  return answer.detections.filter((one) => one.score > least && on.has(one.label));
}

// After every change of threshold, classes or layers.
function update() {
  const least = Number($("threshold").value);
  $("least").textContent = least.toFixed(2);
  if (!answer) return;
  const objects = shown();
  if (!objects.includes(selected)) selected = null;
  const counts = new Map();
  for (const one of answer.detections) {
    if (one.score > least) counts.set(one.label, (counts.get(one.label) || 0) + 1);
  }
  for (const box of document.querySelectorAll("#class-list input")) {
    box.parentElement.lastChild.textContent = counts.get(Number(box.dataset.label)) || 0;
  }
  $("objects").replaceChildren(...objects.map(objectLine));
  $("objects-title").textContent = objects.length ? `Objects (${objects.length})` : "No objects";
  sayWhatIsShown(objects, least);
  redraw();
}

function objectLine(one) {
  const button = make(
    "button",
    { type: "button", "aria-pressed": String(one === selected) },
    swatch(one.label),
    one.class_name,
    make("span", {}, place(one.box)),
    make("b", {}, one.score.toFixed(2)),
  );
  button.addEventListener("click", () => select(one === selected ? null : one));
  return make("li", {}, button);
}

function select(one) {
  selected = one;
  const lines = document.querySelectorAll("#objects button");
  shown().forEach((other, index) => lines[index].setAttribute("aria-pressed", String(other === one)));
  redraw();
}

function place([x1, y1, x2, y2]) {
  const across = ["left", "", "right"][third((x1 + x2) / 2 / answer.width)];
  const down = ["top", "", "bottom"][third((y1 + y2) / 2 / answer.height)];
  return [down, across].filter(Boolean).join(" ") || "middle";
}

const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
const third = (share) => Math.min(2, Math.max(0, Math.floor(3 * share)));

let speaking = 0;
function sayWhatIsShown(objects, least) {
  clearTimeout(speaking); // a moved threshold speaks once it rests
  const best = answer.detections[0];
  let line = `${count(objects.length, "object")} in ${picture.name} above ${least.toFixed(2)}.`;
  if (!answer.detections.length) line = `Nothing was found in ${picture.name}.`;
  else if (!objects.length && best.score <= least) {
    line = `Nothing scores above ${least.toFixed(2)}; the best is ${best.score.toFixed(2)}. Lower the least score to see it.`;
  } else if (!objects.length) line = "All classes that score so high are switched off.";
  speaking = setTimeout(() => say(line), 300);
}

// Drawing ---------------------------------------------------------------------------------------------------

let asked = 0;
function redraw() {
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(() => {
    if (!picture?.bitmap || $("result").hidden) return;
    const canvas = $("canvas");
    const { width, height } = picture.bitmap;
    const ratio = window.devicePixelRatio || 1;
    const most = 0.8 * window.innerHeight; // of a tall picture: threshold and objects stay near
    const wide = Math.min($("stage").clientWidth, (most * width) / height);
    canvas.style.width = `${Math.round(wide)}px`;
    canvas.width = Math.max(1, Math.round(wide * ratio));
    canvas.height = Math.max(1, Math.round((wide * ratio * height) / width));
    paint(canvas, ratio);
  });
}
window.addEventListener("resize", redraw);

// Everything that is shown, on a canvas of any size; `unit` is its pixels in one that a person sees.
function paint(canvas, unit) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture.bitmap, 0, 0, canvas.width, canvas.height);
  if (model.classifier) return;
  const map = attention?.maps.get(document.querySelector("#blocks input:checked")?.value);
  if (map) paintHeat(context, map);
  const layers = new Set([...document.querySelectorAll("#layers input:checked")].map((box) => box.value));
  const scale = canvas.width / answer.width;
  // Small objects come last: they would be under large ones.
  const objects = shown().sort((a, b) => area(b) - area(a));
  for (const one of objects) {
    context.globalAlpha = selected && one !== selected ? 0.25 : 1;
    if (layers.has("masks") && one.mask) paintMask(context, one, scale, unit);
    if (layers.has("boxes")) paintBox(context, one, scale, unit);
  }
  const taken = [];
  for (const one of layers.has("names") ? objects : []) {
    context.globalAlpha = selected && one !== selected ? 0.25 : 1;
    paintName(context, one, scale, unit, taken);
  }
  context.globalAlpha = 1;
}

function paintMask(context, one, scale, unit) {
  const path = new Path2D();
  for (const outline of one.mask) {
    for (let i = 0; i < outline.length; i += 2) {
      path[i ? "lineTo" : "moveTo"](outline[i] * scale, outline[i + 1] * scale);
    }
    path.closePath();
  }
  const alpha = context.globalAlpha;
  context.fillStyle = color(one.label);
  context.globalAlpha = 0.4 * alpha;
  context.fill(path, "evenodd");
  context.globalAlpha = alpha;
  stroke(context, path, one, unit);
}

function paintBox(context, one, scale, unit) {
  const [x1, y1, x2, y2] = one.box.map((side) => side * scale);
  const path = new Path2D();
  path.rect(x1, y1, x2 - x1, y2 - y1);
  stroke(context, path, one, unit);
}

// Coloured on dark, to show on any background.
function stroke(context, path, one, unit) {
  const width = (one === selected ? 3 : 1.5) * unit;
  context.lineJoin = "round";
  context.strokeStyle = "#141414";
  context.lineWidth = width + 1.5 * unit;
  context.stroke(path);
  context.strokeStyle = color(one.label);
  context.lineWidth = width;
  context.stroke(path);
}

function paintName(context, one, scale, unit, taken) {
  const text = `${one.class_name} ${one.score.toFixed(2)}`;
  context.font = `${12.5 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const width = context.measureText(text).width + 8 * unit;
  const height = 18 * unit;
  const [x, y] = [one.box[0] * scale, one.box[1] * scale];
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  const top = freePlace(taken, left, Math.max(0, y - height), width, height, context.canvas.height);
  const [r, g, b] = model.colors[one.label];
  context.fillStyle = color(one.label);
  context.fillRect(left, top, width, height);
  context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 130 ? "#000" : "#fff";
  context.fillText(text, left + 4 * unit, top + height / 2);
}

// The height nearest to `top` at which no other name is; where all is full, `top`.
function freePlace(taken, left, top, width, height, most) {
  for (let step = 0; step < 20; step++) {
    for (const other of [top - step * height, top + step * height]) {
      if (other < 0 || other + height > most) continue;
      const meets = ([l, t, w]) => l < left + width && left < l + w && Math.abs(t - other) < height;
      if (!taken.some(meets)) {
        taken.push([left, other, width]);
        return other;
      }
    }
  }
  return top;
}

// Attention -------------------------------------------------------------------------------------------------

for (const box of document.querySelectorAll("#blocks input")) {
  box.addEventListener("change", async () => {
    if (box.value && !attention) await fetchAttention();
    redraw();
    if (attention) say(box.value ? `Bright is where block ${box.value} looks.` : "Attention is off.");
  });
}

async function fetchAttention() {
  const { signal } = current;
  busy("Asking where the blocks look ...");
  try {
    const found = await (await ask("attention", picture.blob, {}, signal)).json();
    const maps = await Promise.all(found.maps.map(async (one) => [one.block, await heat(one.png)]));
    if (!signal.aborted) attention = { maps: new Map(maps), filled: found.filled };
  } catch (error) {
    if (!signal.aborted) problem(error.message);
  } finally {
    if (!signal.aborted) busy("");
  }
}

// Matplotlib's inferno, at nine places.
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85],
  [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];

// A gray map as a canvas of colours, which let through less where it is bright.
async function heat(png) {
  const bytes = Uint8Array.from(atob(png), (sign) => sign.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = make("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const value = pixels.data[i] / 255;
    const low = Math.min(7, Math.floor(8 * value));
    for (let c = 0; c < 3; c++) {
      pixels.data[i + c] = INFERNO[low][c] + (8 * value - low) * (INFERNO[low + 1][c] - INFERNO[low][c]);
    }
    pixels.data[i + 3] = 255 * (0.2 + 0.7 * value);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function paintHeat(context, map) {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = "saturation"; // the picture in gray
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.fillStyle = "rgba(0, 0, 0, .2)";
  context.fillRect(0, 0, width, height);
  const [across, down] = attention.filled;
  context.drawImage(map, 0, 0, map.width * across, map.height * down, 0, 0, width, height);
}

// Controls --------------------------------------------------------------------------------------------------

$("threshold")?.addEventListener("input", update);
for (const box of document.querySelectorAll("#layers input")) box.addEventListener("change", redraw);
for (const [id, on] of [["all", true], ["none", false]]) {
  $(id)?.addEventListener("click", () => {
    for (const box of document.querySelectorAll("#class-list input")) box.checked = on;
    update();
  });
}

$("canvas").addEventListener("click", (event) => {
  if (model.classifier) return;
  const scale = answer.width / $("canvas").clientWidth;
  const [x, y] = [event.offsetX * scale, event.offsetY * scale];
  const under = shown().filter(({ box: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2);
  select(under.sort((a, b) => area(a) - area(b))[0] || null);
});

$("save-png").addEventListener("click", () => {
  const { width, height } = picture.bitmap;
  const enlarge = Math.max(1, SMALLEST_PNG / Math.max(width, height));
  const canvas = make("canvas", { width: Math.round(width * enlarge), height: Math.round(height * enlarge) });
  paint(canvas, Math.max(canvas.width, canvas.height) / SMALLEST_PNG);
  canvas.toBlob((blob) => {
    if (blob) save(blob, "png");
    else problem("The browser cannot write so large a picture.");
  });
});

$("save-json").addEventListener("click", () => {
  const about = { model: model.name, file: picture.name };
  const result = model.classifier
    ? { ...about, ...answer }
    : { ...about, score_threshold: Number($("threshold").value), ...answer, detections: shown() };
  save(new Blob([JSON.stringify(result, null, 1)], { type: "application/json" }), "json");
});

function save(blob, suffix) {
  const link = make("a", { href: URL.createObjectURL(blob) });
  link.download = `${picture.name.replace(/\.[^.]*$/, "")}-${model.name}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`Saved ${link.download}.`);
}

// Words -----------------------------------------------------------------------------------------------------

function say(line) {
  $("status").textContent = line;
}

function busy(line) {
  $("busy").hidden = !line;
  if (line) say(line);
  else if (!$("problem").hidden) say("");
}

function problem(line) {
  $("problem").hidden = !line;
  $("problem").textContent = line;
}

const sentence = (line) => line.charAt(0).toUpperCase() + line.slice(1).replace(/\.?$/, ".");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1)} MB`;
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const color = (label) => `rgb(${model.colors[label].join(" ")})`;

function swatch(label) {
  const sign = make("i", { "aria-hidden": "true" });
  sign.style.background = color(label);
  return sign;
}

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
