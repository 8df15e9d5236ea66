// Loads the page's metadata, the runtime and the two networks.

import * as ort from "./ort/ort.wasm.min.mjs";

// Threads would need headers that a plain file host does not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;

export const { Tensor } = ort;

/** Fetches a file beside the page; an error names it and says what to do. */
async function get(name) {
  let reply;
  try {
    reply = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`${name} cannot be loaded: the connection to the page's server is lost.`);
  }
  if (!reply.ok) {
    throw new Error(
      `${name} is missing beside this page (${reply.status}): build the folder with examples/browser/build.py.`,
    );
  }
  return reply;
}

async function open(name) {
  const bytes = new Uint8Array(await (await get(name)).arrayBuffer());
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`${name} is no network that this page can run: ${error.message}`);
  }
}

/** The metadata in page.json, and sessions of the classifier and the detector. */
export async function load() {
  const metadata = await (await get("page.json")).json();
  const classifier = await open("model.onnx");
  const detector = await open("detector.onnx");
  return { metadata, classifier, detector };
}
