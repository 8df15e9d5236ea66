// Loads the page's metadata, the runtime, and the networks.

import * as ort from "./ort/ort.wasm.min.mjs";

// Threads would need headers that static hosts do not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;

export const { Tensor } = ort;

/** Fetches a file next to the page; errors name it and say what to do. */
async function get(name) {
  let reply;
  try {
    reply = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`${name} cannot be loaded: the connection to the page's server is lost.`);
  }
  if (!reply.ok) {
    throw new Error(
      `${name} is missing next to this page (${reply.status}): build the folder with examples/browser/build.py.`,
    );
  }
  return reply;
}

async function open(name) {
  const bytes = new Uint8Array(await (await get(name)).arrayBuffer());
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`${name} cannot be run by this page: ${error.message}`);
  }
}

/** Loads the metadata in page.json, and sessions of the classifier and the detector. */
export async function load() {
  const metadata = await (await get("page.json")).json();
  const classifier = await open("model.onnx");
  const detector = await open("detector.onnx");
  return { metadata, classifier, detector };
}
