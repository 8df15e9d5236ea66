// Crops faces out of an image and classifies them.

import { Tensor } from "./runtime.js";

/** Returns an image's pixels as planes of numbers from 0 to 255: one of gray, or red, green and blue. */
export function planes(image, channels) {
  const { width, height } = image;
  const context = image.getContext("2d", { willReadFrequently: true });
  const { data } = context.getImageData(0, 0, width, height);
  const values = Array.from({ length: channels }, () => new Float32Array(width * height));
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) {
      values[0][i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; // ITU-R BT.601, as Pillow rounds it
    } else {
      values[0][i] = r;
      values[1][i] = g;
      values[2][i] = b;
    }
  }
  return values.map((plane) => ({ values: plane, width, height }));
}

/** Mirrors an index beyond an edge. */
function mirror(i, size) {
  const period = 2 * size;
  const place = ((i % period) + period) % period;
  return Math.min(place, period - 1 - place);
}

/** Returns the square in a frame, rotated back by its roll, at its size in the image but at least `least`. */
export function cut(plane, frame, least) {
  const size = Math.max(least, Math.round(frame.side));
  const { values, width, height } = plane;
  const step = frame.side / size;
  const [cos, sin] = [Math.cos(frame.roll), Math.sin(frame.roll)];
  const square = new Float32Array(size * size);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) {
      const [u, v] = [(j + 0.5 - size / 2) * step, (i + 0.5 - size / 2) * step];
      const x = frame.x + u * cos - v * sin - 0.5;
      const y = frame.y + u * sin + v * cos - 0.5;
      const [x0, y0] = [Math.floor(x), Math.floor(y)];
      const [right, below] = [x - x0, y - y0];
      const [xa, xb] = [mirror(x0, width), mirror(x0 + 1, width)];
      const [ya, yb] = [mirror(y0, height) * width, mirror(y0 + 1, height) * width];
      const upper = values[ya + xa] * (1 - right) + values[ya + xb] * right;
      const lower = values[yb + xa] * (1 - right) + values[yb + xb] * right;
      square[i * size + j] = upper * (1 - below) + lower * below;
    }
  }
  return { values: square, width: size, height: size };
}

/** For each of `count` outputs along an axis of `size` the inputs and weights of a triangle filter. */
function taps(size, count) {
  const scale = size / count;
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(size, Math.floor(center + support + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x + 0.5 - center) / support)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

const toByte = (x) => Math.min(255, Math.max(0, Math.round(x)));

/** A plane as side x side whole numbers, antialiased, as Pillow's BILINEAR resizes. */
export function resize(plane, side) {
  const { values, width, height } = plane;
  const across = taps(width, side);
  const rows = new Float32Array(height * side);
  for (let y = 0; y < height; y++) {
    across.forEach(({ first, weights }, j) => {
      rows[y * side + j] = toByte(weights.reduce((sum, w, k) => sum + w * values[y * width + first + k], 0));
    });
  }
  const face = new Uint8Array(side * side);
  taps(height, side).forEach(({ first, weights }, i) => {
    for (let j = 0; j < side; j++) {
      face[i * side + j] = toByte(weights.reduce((sum, w, k) => sum + w * rows[(first + k) * side + j], 0));
    }
  });
  return face;
}

const KERNELS = {
  bilinear: (x) => Math.max(0, 1 - x),
  bicubic: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((2.5 - 0.5 * x) * x - 4) * x + 2 : 0), // Keys 1981
};

/** A square of `size` x `size` whole numbers as `side` x `side`, interpolated as the network's training does it. */
function enlarge(square, size, side, { interpolation, fill, mean }) {
  const beyond = 255 * ([mean].flat().reduce((a, b) => a + b) / [mean].flat().length);
  const along = Array.from({ length: side }, (_, i) => {
    const center = ((i + 0.5) * size) / side - 0.5;
    const first = Math.floor(center) - 1;
    return [first, first + 1, first + 2, first + 3].map((x) => ({
      place: fill === "constant" && (x < 0 || x >= size) ? null : mirror(x, size),
      weight: KERNELS[interpolation](Math.abs(x - center)),
    }));
  });
  const at = (taps, value) =>
    taps.reduce((sum, { place, weight }) => sum + weight * (place === null ? beyond : value(place)), 0);
  const rows = Array.from({ length: size }, (_, y) => along.map((taps) => at(taps, (x) => square[y * size + x])));
  const face = new Uint8Array(side * side);
  along.forEach((taps, i) => {
    for (let j = 0; j < side; j++) face[i * side + j] = toByte(at(taps, (y) => rows[y][j]));
  });
  return face;
}

/** Returns faces as the network takes them, one plane per channel, for each frame or for the full image. */
export function crops(image, frames, facts) {
  const [, side, , channels] = facts.input.shape;
  // What the network saw enlarged in training was never sharp: such faces are shrunk first.
  const size = Math.min(side, facts.input.side_in_training ?? side);
  const fit = (plane) => (size < side ? enlarge(resize(plane, size), size, side, facts.input) : resize(plane, side));
  const whole = planes(image, channels);
  if (!frames) return [whole.map(fit)];
  return frames.map((frame) => whole.map((plane) => fit(cut(plane, frame, size))));
}

/** The probabilities of each of several faces, from `crops`: one array of numbers a face. */
export async function classify(session, facts, faces) {
  const [, side, , channels] = facts.input.shape;
  const area = side * side;
  const values = new Uint8Array(faces.length * area * channels);
  faces.forEach((face, n) => {
    face.forEach((plane, c) => {
      for (let i = 0; i < area; i++) values[(n * area + i) * channels + c] = plane[i];
    });
  });
  const shape = [faces.length, side, side, channels];
  const outputs = await session.run({ [facts.input.name]: new Tensor("uint8", values, shape) });
  const { data } = outputs[facts.output.name];
  const classes = facts.labels.length;
  return faces.map((_, n) => Array.from(data.subarray(n * classes, (n + 1) * classes)));
}
