// The page: detects and classifies faces in images and webcam frames.

import { classify, crops } from "./classify.js";
import { detect } from "./detect.js";
import { load } from "./runtime.js";
import { toCsv } from "./table.js";
import { drawBoxes, element, faceList, headline, showModel } from "./view.js";

const LARGEST = 2048; // longer side in pixels; larger images are downscaled

const NONE = "No face found. If this image is one face, check the box above and choose it again.";

const byId = (id) => document.getElementById(id);
const status = byId("status");
const results = byId("results");
const live = byId("live");
const files = byId("files");
const webcam = byId("webcam");
const whole = byId("whole");
const example = byId("example");
const finished = byId("finished"); // buttons for the results
const images = []; // {name, faces} of the shown images, oldest first

let parts; // the result of `load`
let camera = null; // the stream, while it runs
let last = Promise.resolve(); // sessions run one call at a time

function say(text) {
  status.textContent = text;
}

function complain(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

/** Runs work after all previous work. */
function inTurn(work) {
  const result = last.then(work);
  last = result.catch(() => {});
  return result;
}

/** Returns the faces in a canvas, each with crop, probabilities, and, if detected, box. */
async function look(image) {
  const { metadata, classifier, detector } = parts;
  const found = whole.checked ? null : await detect(detector, metadata.detector, image);
  if (found?.length === 0) return [];
  const seen = crops(image, found?.map((one) => one.frame), metadata.model);
  const probabilities = await classify(classifier, metadata.model, seen);
  return seen.map((crop, n) => ({ ...found?.[n], crop, probabilities: probabilities[n] }));
}

function toCanvas(source, width, height) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  const canvas = element("canvas", "image");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function summary(faces) {
  if (faces.length === 0) return "no face found";
  const said = faces.map(({ probabilities }) => headline(parts.metadata, probabilities));
  return `${faces.length} ${faces.length === 1 ? "face" : "faces"}: ${said.join(", ")}`;
}

/** Shows an image with its faces, or the text `none`. */
function show(card, canvas, faces, none) {
  drawBoxes(canvas, parts.metadata, faces);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", summary(faces));
  const both = element("div", "both");
  both.append(canvas, faces.length ? faceList(parts.metadata, faces) : element("p", "note", none));
  card.replaceChildren(card.firstElementChild, both);
}

async function showFile(file) {
  const card = element("article", "card");
  card.append(element("h2", "", file.name));
  results.prepend(card);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    card.append(element("p", "bad", `${file.name} is not an image that this browser can read: choose a JPEG, PNG, or WebP file.`));
    return `${file.name}: not an image`;
  }
  const canvas = toCanvas(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  const faces = await look(canvas);
  show(card, canvas, faces, NONE);
  if (faces.length) card.append(saveButton(canvas, file.name));
  images.push({ name: file.name, faces });
  finished.hidden = false;
  return `${file.name}: ${summary(faces)}`;
}

/** Saves a blob under a name. */
function save(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveButton(canvas, name) {
  const button = element("button", "save", "Download the image");
  button.type = "button";
  const target = `${name.replace(/\.[^.]*$/, "")}_annotated.png`;
  button.addEventListener("click", () => canvas.toBlob((blob) => save(blob, target)));
  return button;
}

function saveTable() {
  const { labels } = parts.metadata.model;
  save(new Blob([toCsv(images, labels, parts.metadata.unsure_below)], { type: "text/csv" }), "faces.csv");
}

function clear() {
  images.length = 0;
  results.replaceChildren();
  finished.hidden = true;
  complain("");
  say("Ready: choose images or use the webcam.");
}

async function showExample() {
  const reply = await fetch(new URL("example.jpg", import.meta.url));
  await showFiles([new File([await reply.blob()], "example.jpg", { type: "image/jpeg" })]);
}

async function showFiles(list) {
  complain("");
  for (const [n, file] of [...list].entries()) {
    say(`Analyzing ${file.name} (${n + 1} of ${list.length}) …`);
    try {
      say(await inTurn(() => showFile(file)));
    } catch (error) {
      complain(`${file.name}: ${error.message}`);
      say("");
    }
  }
}

const REFUSALS = {
  NotAllowedError: "Access to the webcam was denied: allow it for this page in the browser settings, then press the button again.",
  NotFoundError: "No webcam was found: connect one, then press the button again.",
  NotReadableError: "The webcam is in use by another program: close it, then press the button again.",
};

async function startCamera() {
  complain("");
  if (!navigator.mediaDevices) {
    complain("Browsers allow webcams only on HTTPS pages and localhost.");
    return;
  }
  webcam.disabled = true;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    complain(REFUSALS[error.name] ?? `The webcam cannot be used: ${error.message}`);
    return;
  } finally {
    webcam.disabled = false;
  }
  webcam.textContent = "Stop the webcam";
  say("The webcam is on.");
  await watch(camera);
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  webcam.textContent = "Use the webcam";
  live.hidden = true;
  say("The webcam is off.");
}

/** Shows frames until the stream ends or is replaced. */
async function watch(stream) {
  const video = element("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  live.replaceChildren(element("h2", "", "Webcam"));
  live.hidden = false;
  stream.getVideoTracks()[0].addEventListener("ended", stopCamera);
  try {
    while (camera === stream) {
      const canvas = toCanvas(video, video.videoWidth, video.videoHeight);
      const faces = await inTurn(() => look(canvas));
      const open = [...live.querySelectorAll("details")].map((one) => one.open);
      show(live, canvas, faces, "No face found.");
      live.querySelectorAll("details").forEach((one, n) => (one.open = open[n] ?? false));
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    stopCamera();
    complain(`The webcam cannot be used: ${error.message}`);
  }
}

function listen() {
  files.addEventListener("change", async () => {
    const chosen = [...files.files];
    files.value = ""; // so that the same file can be chosen again
    await showFiles(chosen);
  });
  webcam.addEventListener("click", () => (camera ? stopCamera() : startCamera()));
  example.addEventListener("click", showExample);
  byId("table").addEventListener("click", saveTable);
  byId("clear").addEventListener("click", clear);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    showFiles(event.dataTransfer.files);
  });
}

try {
  parts = await load();
  showModel(parts.metadata);
  listen();
  files.disabled = false;
  webcam.disabled = false;
  example.disabled = false;
  say("Ready: choose images or use the webcam.");
} catch (error) {
  say("");
  complain(error.message);
}
