// A release's .tflite file under LiteRT.js: texts or pictures in, probabilities out.

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "./litert/index.js";
import { readPicture } from "./picture.js";
import { modelPixels } from "./pixels.js";
import { SentencePiece } from "./sentencepiece.js";
import { averaged } from "./tokens.js";
import { WordPiece } from "./wordpiece.js";

const RELEASE = "../";
const TOKENIZERS = { wordpiece: WordPiece, sentencepiece: SentencePiece };
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

/** Fetches a file and tells how many bytes of it have come; `signal` ends it. */
async function bytesOf(path, { onBytes, signal }) {
  const response = await fetch(path, { signal });
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  const parts = [];
  let count = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    count += value.length;
    onBytes(count);
  }
  const bytes = new Uint8Array(count);
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

export async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  return response.json();
}

/** Inputs of a text classifier. */
class Texts {
  static async load(settings, { signal }) {
    const tokenizer = TOKENIZERS[settings.tokenizer];
    const response = await fetch(RELEASE + tokenizer.file, { signal });
    if (!response.ok) {
      throw new Error(`${tokenizer.file} cannot be loaded: ${response.status} ${response.statusText}`);
    }
    return new Texts(tokenizer.read(new Uint8Array(await response.arrayBuffer()), settings));
  }

  constructor(tokenizer) {
    this.tokenizer = tokenizer;
  }

  prepare(text) {
    const rows = this.tokenizer.encode(text);
    return { rows: rows.map((row) => this.tokenizer.tensors(row)), tokens: rows };
  }
}

/** Inputs of an image classifier. */
class Pictures {
  static load(settings) {
    return new Pictures(settings);
  }

  constructor(settings) {
    this.settings = settings;
  }

  async prepare(file) {
    const picture = await readPicture(file, this.settings.max_pixels);
    const pixels = modelPixels(picture, this.settings, picture.jpeg);
    return { rows: [{ pixels }], pixels, size: [picture.width, picture.height] };
  }
}

const KINDS = { text: Texts, image_bytes: Pictures };

/** Starts the runtime; once a page. Returns the name of the build that this browser can run. */
export async function startRuntime() {
  await loadLiteRt("./litert/");
  return (await supportsFeature("relaxedSimd")) ? "relaxed SIMD" : "SIMD";
}

/** One variant of the release's model, ready to answer. */
export class Classifier {
  static async load(settings, entry, { onBytes, signal }) {
    const inputs = await KINDS[settings.feature].load(settings.preprocessor, { signal });
    const content = await bytesOf(RELEASE + entry.path, { onBytes, signal });
    const model = await loadAndCompile(content, { accelerator: "wasm" });
    const classifier = new Classifier(settings, entry, inputs, model);
    await classifier.warmUp();
    return classifier;
  }

  constructor(settings, entry, inputs, model) {
    Object.assign(this, { settings, entry, inputs, model });
    this.details = model.getInputDetails();
  }

  /** Calls the model once with zeros: the first call of all is the slowest. */
  async warmUp() {
    const zeros = this.details.map(({ name, shape }) => [name, new Int32Array(shape.reduce((one, other) => one * other))]);
    await this.answer({ rows: [Object.fromEntries(zeros)] });
  }

  /** Makes the model's inputs of a text or a picture. */
  prepare(feature) {
    return this.inputs.prepare(feature);
  }

  /** Answers prepared inputs: a probability for each class. */
  async answer({ rows }) {
    const answers = [];
    for (const row of rows) answers.push(await this.one(row));
    return averaged(answers);
  }

  async one(row) {
    const given = {};
    for (const { name, dtype, shape } of this.details) {
      given[name] = new Tensor(ARRAYS[dtype].from(row[name]), [...shape]);
    }
    const { probabilities } = await this.model.run(given);
    // A file of integers: what one step of its answer is worth, and which integer is 0.
    const { step, zero } = this.entry;
    const answer = Array.from(probabilities.toTypedArray(), (value) => (step ? (value - zero) * step : value));
    for (const tensor of [probabilities, ...Object.values(given)]) tensor.delete();
    return answer;
  }

  delete() {
    this.model.delete();
  }
}

export function best(probabilities) {
  return probabilities.indexOf(Math.max(...probabilities));
}

/** The value below which a share of sorted times lies. */
export function quantile(times, share) {
  const sorted = [...times].sort((first, second) => first - second);
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}
