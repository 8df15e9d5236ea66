// Finds faces with YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

import { Tensor } from "./runtime.js";

const SIDE = 640; // of the network's input
const LEAST = 320; // to which the longer side of a small image is enlarged
const STRIDES = [8, 16, 32];

/** Draws an image into the corner of the network's square input: float32 [1, 3, 640, 640], BGR, 0 to 255. */
function toInput(image, scale) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "black";
  context.fillRect(0, 0, SIDE, SIDE);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, image.width * scale, image.height * scale);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  const area = SIDE * SIDE;
  const values = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) values[c * area + i] = data[4 * i + 2 - c];
  }
  return new Tensor("float32", values, [1, 3, SIDE, SIDE]);
}

const clamp = (x) => Math.min(Math.max(x, 0), 1);

/** Returns the faces in the network's outputs, in pixels of its input: box, eyes (from the left), score. */
export function decode(outputs, minScore) {
  const found = [];
  for (const stride of STRIDES) {
    const columns = SIDE / stride;
    const [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map((name) => outputs[`${name}_${stride}`].data);
    for (let i = 0; i < columns * columns; i++) {
      const score = Math.sqrt(clamp(cls[i]) * clamp(obj[i]));
      if (score < minScore) continue;
      const column = i % columns;
      const row = Math.floor(i / columns);
      const width = Math.exp(bbox[4 * i + 2]) * stride;
      const height = Math.exp(bbox[4 * i + 3]) * stride;
      const left = (column + bbox[4 * i]) * stride - width / 2;
      const top = (row + bbox[4 * i + 1]) * stride - height / 2;
      const eyes = [0, 1].map((n) => ({
        x: (column + kps[10 * i + 2 * n]) * stride,
        y: (row + kps[10 * i + 2 * n + 1]) * stride,
      }));
      found.push({ left, top, width, height, eyes, score });
    }
  }
  return found;
}

function overlap(a, b) {
  const width = Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left);
  const height = Math.min(a.top + a.height, b.top + b.height) - Math.max(a.top, b.top);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / (a.width * a.height + b.width * b.height - shared);
}

/** Keeps the best-scoring one of faces that overlap by more than `most`. */
export function suppress(found, most) {
  const kept = [];
  for (const one of found.toSorted((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(one, other) <= most)) kept.push(one);
  }
  return kept;
}

/**
 * Returns the faces of an image (a canvas), largest first.
 *
 * Each has its box, its score, and the frame that the classifier sees: a square with its center (x, y),
 * its side and the angle in radians by which the face leans clockwise. All in pixels of the image.
 */
export async function detect(session, metadata, image) {
  const longest = Math.max(image.width, image.height);
  const scale = Math.min(Math.max(longest, LEAST), SIDE) / longest;
  const outputs = await session.run({ [session.inputNames[0]]: toInput(image, scale) });
  const found = suppress(decode(outputs, metadata.min_score), metadata.overlap);
  const faces = found.map((one) => {
    const box = {
      left: one.left / scale,
      top: one.top / scale,
      width: one.width / scale,
      height: one.height / scale,
    };
    const side = metadata.frame_scale * Math.max(box.width, box.height);
    const [first, second] = one.eyes;
    const frame = {
      x: box.left + box.width / 2,
      y: box.top + box.height / 2 + metadata.frame_down * side,
      side,
      roll: leaning(Math.atan2(second.y - first.y, second.x - first.x), metadata.min_roll),
    };
    return { box, score: one.score, frame };
  });
  return faces.sort((a, b) => b.box.width * b.box.height - a.box.width * a.box.height);
}

/** A roll in radians, or 0 where it is less than so many degrees: the network saw such faces in its training. */
function leaning(roll, least) {
  return Math.abs(roll) * 180 >= least * Math.PI ? roll : 0;
}
