// The faces of all images as a CSV file, with the columns of `fer-jax predict --out`.

const BOX = ["left", "top", "width", "height"];

function field(value) {
  const text = `${value ?? ""}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Returns the table as text.
 *
 * `images` are names with their faces: [{ name, faces: [{ box, score, probabilities }] }]; box and score are
 * undefined for an image that is one face.
 */
export function toCsv(images, labels, unsureBelow) {
  const columns = ["source", "status", "face", ...BOX, "detection_score", "emotion", "confidence", "unsure"];
  const lines = [[...columns, ...labels.map((label) => `p_${label}`)]];
  for (const { name, faces } of images) {
    if (faces.length === 0) lines.push([name, "no_face", ...Array(columns.length - 2 + labels.length).fill("")]);
    faces.forEach(({ box, score, probabilities }, n) => {
      const confidence = Math.max(...probabilities);
      const emotion = labels[probabilities.indexOf(confidence)];
      const place = BOX.map((side) => box?.[side].toFixed(1));
      const answer = [emotion, confidence.toFixed(6), confidence < unsureBelow ? "True" : "False"];
      const shares = probabilities.map((p) => p.toFixed(6));
      lines.push([name, "face", n + 1, ...place, score?.toFixed(4), ...answer, ...shares]);
    });
  }
  return lines.map((line) => `${line.map(field).join(",")}\n`).join("");
}
