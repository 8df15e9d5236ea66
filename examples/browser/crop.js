// Crops faces out of an image, as Pillow does it for fer_jax: cropping.crop, number for number.

const OVERSAMPLING = 2; // a face is reduced to about this many times its final size before it is rotated

/** Returns pixels (RGBA) as planes of numbers from 0 to 255: one of gray, or red, green and blue. */
export function toPlanes(data, width, height, channels) {
  const values = Array.from({ length: channels }, () => new Uint8Array(width * height));
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
export function mirror(i, size) {
  const period = 2 * size;
  const place = ((i % period) + period) % period;
  return Math.min(place, period - 1 - place);
}

export const toByte = (x) => Math.min(255, Math.max(0, Math.round(x)));

/** Returns the part of a plane from (left, top) to before (right, bottom), mirrored where it reaches outside. */
function patch({ values, width, height }, left, top, right, bottom) {
  const columns = Array.from({ length: right - left }, (_, j) => mirror(left + j, width));
  const found = new Uint8Array((right - left) * (bottom - top));
  for (let i = top, at = 0; i < bottom; i++) {
    const row = mirror(i, height) * width;
    for (const column of columns) found[at++] = values[row + column];
  }
  return { values: found, width: right - left, height: bottom - top };
}

/** Returns means over squares of `factor` x `factor` pixels, of fewer at the right and lower edges. */
function reduce({ values, width, height }, factor) {
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const found = new Uint8Array(columns * rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const [bottom, right] = [Math.min(height, (i + 1) * factor), Math.min(width, (j + 1) * factor)];
      let [sum, count] = [0, 0];
      for (let y = i * factor; y < bottom; y++) {
        for (let x = j * factor; x < right; x++, count++) sum += values[y * width + x];
      }
      found[i * columns + j] = toByte(sum / count);
    }
  }
  return { values: found, width: columns, height: rows };
}

/** Weights of four neighbors at a fraction between the inner two: cubic convolution with a = -1. */
function cubic(t) {
  return [-t * (1 - t) ** 2, 1 - 2 * t ** 2 + t ** 3, t * (1 + t - t ** 2), -(t ** 2) * (1 - t)];
}

/** Returns a plane rotated counterclockwise by radians about (x, y); what comes from outside is black. */
function rotate({ values, width, height }, angle, x, y) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const clamp = (i, size) => Math.min(Math.max(i, 0), size - 1);
  const found = new Uint8Array(width * height);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      const [dx, dy] = [j + 0.5 - x, i + 0.5 - y];
      const [u, v] = [x + cos * dx - sin * dy, y + sin * dx + cos * dy];
      if (u < 0 || v < 0 || u >= width || v >= height) continue;
      const [column, row] = [Math.floor(u - 0.5), Math.floor(v - 0.5)];
      const [across, down] = [cubic(u - 0.5 - column), cubic(v - 0.5 - row)];
      let sum = 0;
      for (let k = 0; k < 4; k++) {
        const line = clamp(row - 1 + k, height) * width;
        for (let l = 0; l < 4; l++) sum += down[k] * across[l] * values[line + clamp(column - 1 + l, width)];
      }
      found[i * width + j] = Math.min(255, Math.max(0, sum)); // Pillow, too, cuts off what follows the point
    }
  }
  return { values: found, width, height };
}

/** For each of `count` outputs from `start` to `end` on an axis the first input and the weights of a triangle filter. */
function taps(size, count, start, end) {
  const scale = (end - start) / count;
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const center = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(size, Math.floor(center + support + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x + 0.5 - center) / support)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** The box (left, top, right, bottom) of a plane as side x side whole numbers, as Pillow's BILINEAR resizes. */
export function resize({ values, width, height }, side, box = [0, 0, width, height]) {
  const [left, top, right, bottom] = box.map((x, n) => Math.min(Math.max(x, 0), n % 2 ? height : width));
  const across = taps(width, side, left, right);
  const rows = new Uint8Array(height * side);
  for (let y = Math.max(0, Math.floor(top) - 1); y < height; y++) {
    across.forEach(({ first, weights }, j) => {
      rows[y * side + j] = toByte(weights.reduce((sum, w, k) => sum + w * values[y * width + first + k], 0));
    });
  }
  const face = new Uint8Array(side * side);
  taps(height, side, top, bottom).forEach(({ first, weights }, i) => {
    for (let j = 0; j < side; j++) {
      face[i * side + j] = toByte(weights.reduce((sum, w, k) => sum + w * rows[(first + k) * side + j], 0));
    }
  });
  return face;
}

/** The square in a frame (center x and y, side, roll in radians clockwise), upright, as side x side whole numbers. */
export function crop(plane, frame, side) {
  const reach = frame.side * (Math.abs(Math.cos(frame.roll)) + Math.abs(Math.sin(frame.roll)));
  const [left, top] = [Math.floor(frame.x - reach / 2), Math.floor(frame.y - reach / 2)];
  const right = Math.max(left + 1, Math.ceil(frame.x + reach / 2));
  const bottom = Math.max(top + 1, Math.ceil(frame.y + reach / 2));
  let part = patch(plane, left, top, right, bottom);
  let [x, y, half] = [frame.x - left, frame.y - top, frame.side / 2];
  if (frame.roll) {
    const factor = Math.floor(frame.side / (OVERSAMPLING * side));
    if (factor > 1) {
      part = reduce(part, factor);
      [x, y, half] = [x / factor, y / factor, half / factor];
    }
    part = rotate(part, frame.roll, x, y);
  }
  return resize(part, side, [x - half, y - half, x + half, y + half]);
}
