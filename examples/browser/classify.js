// Cuts faces to what the network takes, and classifies them.

import { crop, resize, toPlanes } from "./crop.js";
import { Tensor } from "./runtime.js";

/** Returns faces as the network takes them, one plane per channel, for each frame or for the full image. */
export function crops(image, frames, metadata) {
  const [, side, , channels] = metadata.input.shape;
  const { width, height } = image;
  const { data } = image.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height);
  const planes = toPlanes(data, width, height, channels);
  if (!frames) return [planes.map((plane) => resize(plane, side))];
  return frames.map((frame) => planes.map((plane) => crop(plane, frame, side)));
}

/** The probabilities of each of several faces, from `crops`: one array of numbers a face. */
export async function classify(session, metadata, faces) {
  const [, side, , channels] = metadata.input.shape;
  const area = side * side;
  const values = new Uint8Array(faces.length * area * channels);
  faces.forEach((face, n) => {
    face.forEach((plane, c) => {
      for (let i = 0; i < area; i++) values[(n * area + i) * channels + c] = plane[i];
    });
  });
  const shape = [faces.length, side, side, channels];
  const outputs = await session.run({ [metadata.input.name]: new Tensor("uint8", values, shape) });
  const { data } = outputs[metadata.output.name];
  const classes = metadata.labels.length;
  return faces.map((_, n) => Array.from(data.subarray(n * classes, (n + 1) * classes)));
}
