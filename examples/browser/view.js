// Shows images, faces, and probabilities. Text is always inserted as text, never as HTML.

const SHOWN = 3;
const DARK = "#101418";

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The color of a prediction, as in the app, and of text on it. */
function colors(metadata, probabilities) {
  const fill = isUnsure(metadata, probabilities) ? metadata.colors.unsure : metadata.colors[best(metadata, probabilities).label];
  const levels = [1, 3, 5].map((i) => parseInt(fill.slice(i, i + 2), 16) / 255);
  const [r, g, b] = levels.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return { fill, ink: 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? DARK : "#ffffff" };
}

const percent = (p) => `${(100 * p).toFixed(p > 0.995 || p < 0.005 ? 1 : 0)} %`;

function ranked(labels, probabilities) {
  return labels.map((label, i) => ({ label, p: probabilities[i] })).sort((a, b) => b.p - a.p);
}

const best = (metadata, probabilities) => ranked(metadata.model.labels, probabilities)[0];

function bars(metadata, rows) {
  const list = element("ul", "bars");
  for (const { label, p } of rows) {
    const row = element("li");
    const track = element("span", "track");
    const bar = element("span", "bar");
    bar.style.width = `${100 * p}%`;
    bar.style.background = metadata.colors[label];
    track.append(bar);
    row.append(element("span", "", label), track, element("span", "percent", percent(p)));
    list.append(row);
  }
  return list;
}

/** The crop of a face. */
function thumbnail(face, side) {
  const canvas = element("canvas", "crop");
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = face[Math.min(c, face.length - 1)][i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "the face as the network sees it");
  return canvas;
}

/** The prediction of a face as text; `metadata` is that of the page. */
export function headline(metadata, probabilities) {
  const { label, p } = best(metadata, probabilities);
  return `${label} ${percent(p)}`;
}

export function isUnsure(metadata, probabilities) {
  return Math.max(...probabilities) < metadata.unsure_below;
}

/** A list of faces with their probabilities. */
export function faceList(metadata, faces) {
  const list = element("ol", "faces");
  faces.forEach(({ crop, probabilities }, n) => {
    const rows = ranked(metadata.model.labels, probabilities);
    const item = element("li", isUnsure(metadata, probabilities) ? "face is-unsure" : "face");
    const words = element("div");
    const number = faces.length > 1 ? `${n + 1}: ` : "";
    words.append(element("p", "answer", number + headline(metadata, probabilities)));
    if (isUnsure(metadata, probabilities)) {
      const [first, second] = rows;
      words.append(
        element("p", "note", `Unsure: below ${percent(metadata.unsure_below)}. ${first.label}, or ${second.label}?`),
      );
    }
    words.append(bars(metadata, rows.slice(0, SHOWN)));
    const rest = element("details");
    rest.append(element("summary", "", `All ${rows.length}`), bars(metadata, rows));
    words.append(rest);
    item.append(thumbnail(crop, metadata.model.input.shape[1]), words);
    list.append(item);
  });
  return list;
}

/** Draws boxes with emotions onto the canvas of an image, numbered if there are several. */
export function drawBoxes(canvas, metadata, faces) {
  const context = canvas.getContext("2d");
  const unit = Math.max(canvas.width, canvas.height) / 100;
  context.font = `600 ${Math.max(12, 3 * unit)}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  for (const { box, probabilities } of faces) {
    if (!box) continue;
    const sides = [box.left, box.top, box.width, box.height];
    context.setLineDash([]);
    context.lineWidth = Math.max(3, 0.8 * unit);
    context.strokeStyle = DARK;
    context.strokeRect(...sides);
    context.setLineDash(isUnsure(metadata, probabilities) ? [2 * unit, unit] : []);
    context.lineWidth = Math.max(2, 0.5 * unit);
    context.strokeStyle = colors(metadata, probabilities).fill;
    context.strokeRect(...sides);
  }
  // After all boxes, so that no box crosses a label.
  faces.forEach(({ box, probabilities }, n) => {
    if (!box) return;
    const { fill, ink } = colors(metadata, probabilities);
    const said = isUnsure(metadata, probabilities) ? `Unsure: ${headline(metadata, probabilities)}` : headline(metadata, probabilities);
    const text = faces.length > 1 ? `${n + 1}: ${said}` : said;
    const width = context.measureText(text).width + 1.2 * unit;
    const height = Math.max(12, 3 * unit) * 1.3;
    const left = Math.max(0, Math.min(box.left, canvas.width - width));
    const bottom = Math.max(box.top, height);
    context.fillStyle = fill;
    context.fillRect(left, bottom - height, width, height);
    context.fillStyle = ink;
    context.fillText(text, left + 0.6 * unit, bottom - 0.12 * height);
  });
}

/** The section about the network, from its metadata. */
export function showModel(metadata) {
  const { model } = metadata;
  const found = model.verified;
  const selection = model.accuracy.selection;
  const share = (x) => `${(100 * x).toFixed(1)} %`;
  let accuracy = "not measured";
  if (found.accuracy !== undefined) {
    const [low, high] = found.interval_95;
    accuracy = `${share(found.accuracy)} of ${found.of} (95 % interval of the network ${share(low)} - ${share(high)})`;
  } else if (selection) {
    accuracy = `${share(selection.value)} of ${selection.split} of ${model.accuracy.trained_on}`;
  }
  if (selection) accuracy += `. The weights were selected on ${selection.split}, so accuracies on it are optimistic.`;
  const rows = {
    Accuracy: accuracy,
    Classes: model.labels.join(", "),
    Input: `${model.input.colours} faces of ${model.input.shape[1]} x ${model.input.shape[2]} pixels`,
    Confidence: `calibrated by a temperature of ${model.output.temperature.toFixed(3)}`,
    License: `code ${model.licence.code}; weights ${model.licence.weights}; ${model.licence.data}`,
    Weights: `${model.checkpoint.name}, SHA-256 ${model.checkpoint.sha256}`,
    Versions: Object.entries(model.versions).map(([name, version]) => `${name} ${version}`).join(", "),
    "Face detector": metadata.detector.source,
  };
  document.getElementById("use").textContent = model.intended_use;
  const list = document.getElementById("metadata");
  for (const [name, text] of Object.entries(rows)) list.append(element("dt", "", name), element("dd", "", text));
  document.getElementById("model").hidden = false;
}
