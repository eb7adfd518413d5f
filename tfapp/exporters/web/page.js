// The page: what is typed or dropped is classified, shown and timed.

import { selfCheck } from "./check.js";
import { best, Classifier, json, quantile, startRuntime } from "./runtime.js";
import { inTurn } from "./turns.js";

const SHOWN = 8;
const REPEATS = 50;
const TYPING_PAUSE = 250;
const LONGEST_FRAME = 100;

const state = {
  settings: null,
  build: "",
  classifier: null,
  feature: null, // what is on the page: a text or a file
  prepared: null, // the model's inputs of it
  asked: 0,
  all: false, // whether every class is shown
  running: 0,
  held: 0, // how many tasks keep others from being started
  loading: null, // what ends the loading of a model
};
const element = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
const milliseconds = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;

/** Lets the browser show what has changed before the next computation holds it up; in the background it does not. */
const shown = () =>
  new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, LONGEST_FRAME);
  });

function say(text, kind = "") {
  element("status").textContent = text;
  element("status").className = `status ${kind}`;
}

function refresh() {
  document.documentElement.dataset.state = state.running ? "busy" : "ready";
  element("variant").disabled = state.held > 0 && state.loading === null;
  element("check").disabled = state.held > 0 || state.classifier === null;
  element("repeat").disabled = state.held > 0 || state.classifier === null || state.prepared === null;
}

/**
 * Does something that takes a while when its turn comes; `holds` keeps other tasks than classifying from being
 * started.
 */
async function busy(work, { holds }) {
  state.running += 1;
  state.held += Number(holds);
  refresh();
  try {
    await inTurn(work);
  } finally {
    state.running -= 1;
    state.held -= Number(holds);
    refresh();
  }
}

/** The same, and what goes wrong is shown. */
async function task(work, { holds = false } = {}) {
  try {
    await busy(work, { holds });
  } catch (error) {
    console.error(error);
    say(error.message, "bad");
  }
}

function bar(name, probability, first) {
  const row = document.createElement("li");
  row.className = first ? "bar first" : "bar";
  const label = document.createElement("span");
  label.className = "label";
  label.dir = "auto";
  label.textContent = name;
  const value = document.createElement("span");
  value.className = "value";
  value.textContent = `${(probability * 100).toFixed(1)} %`;
  const track = document.createElement("span");
  track.className = "track";
  const fill = document.createElement("span");
  fill.style.width = `${probability * 100}%`;
  track.append(fill);
  row.append(label, value, track);
  return row;
}

function showAnswer(probabilities) {
  const { classes } = state.settings;
  const order = classes.map((_, index) => index).sort((one, other) => probabilities[other] - probabilities[one]);
  const top = best(probabilities);
  const rows = state.all ? order : order.slice(0, SHOWN);
  element("bars").replaceChildren(...rows.map((index) => bar(classes[index], probabilities[index], index === top)));
  element("answer").textContent = classes[top];
  element("result").hidden = false;
  element("more").hidden = classes.length <= SHOWN;
  element("more").textContent = state.all ? `Show the first ${SHOWN}` : `Show all ${classes.length} classes`;
  element("more").onclick = () => {
    state.all = !state.all;
    showAnswer(probabilities);
  };
}

function wordTiming(preparing, answering) {
  const { tokens, size } = state.prepared;
  const what = tokens
    ? `${tokens.reduce((sum, row) => sum + row.length, 0)} tokens${tokens.length > 1 ? ` in ${tokens.length} windows` : ""}`
    : `${size[0]} × ${size[1]} pixels`;
  const how = tokens ? "to split into tokens" : "to decode and resize";
  element("timing").textContent =
    `${what}: ${milliseconds(preparing)} ${how}, ${milliseconds(answering)} for the model.`;
}

/** Shows a picture, which has the browser decode it; null for none. */
function showPicture(file) {
  const preview = element("preview");
  URL.revokeObjectURL(preview.src);
  preview.removeAttribute("src");
  if (file) preview.src = URL.createObjectURL(file);
  preview.alt = file?.name ? `The chosen picture, ${file.name}` : "The chosen picture";
  preview.hidden = file === null;
  element("drop").classList.toggle("filled", file !== null);
}

function showNothing() {
  state.prepared = null;
  element("result").hidden = true;
  showPicture(null);
  refresh();
}

/** Classifies what is on the page, unless something newer has come meanwhile. */
async function classify() {
  const number = ++state.asked;
  const { feature } = state;
  if (feature === null || feature === "") {
    showNothing();
    return;
  }
  await task(async () => {
    const { classifier } = state;
    if (number !== state.asked) return;
    if (classifier === null) {
      showNothing();
      return;
    }
    await shown();
    try {
      const started = performance.now();
      const prepared = await classifier.prepare(feature);
      const ready = performance.now();
      const probabilities = await classifier.answer(prepared);
      const done = performance.now();
      if (number !== state.asked) return;
      state.prepared = prepared;
      // Not before: a picture that is too large is refused by what its header says.
      if (feature instanceof Blob) showPicture(feature);
      showAnswer(probabilities);
      wordTiming(ready - started, done - ready);
      say("");
    } catch (error) {
      showNothing();
      throw error;
    }
  });
}

async function repeat() {
  const { classifier, prepared } = state;
  if (classifier === null || prepared === null) return;
  const times = [];
  for (let number = 0; number < REPEATS + 2; number += 1) {
    const started = performance.now();
    await classifier.answer(prepared);
    times.push(performance.now() - started);
    element("speed").textContent = `${Math.min(number + 1, REPEATS)} of ${REPEATS}`;
    if (number % 5 === 0) await shown();
  }
  // The first two are to warm up.
  const kept = times.slice(2);
  const [p50, p95] = [0.5, 0.95].map((share) => milliseconds(quantile(kept, share)));
  element("speed").textContent = `p50 ${p50}, p95 ${p95}, of ${REPEATS} calls`;
}

function wordInputs({ same, total }) {
  if (state.settings.feature === "text") return `${same} of ${total} texts split into the release's tokens`;
  if (same === null) return "pixels not compared, as browsers offer checksums over HTTPS only";
  return `${same} of ${total} pictures decoded to the release's very pixels`;
}

function wordDifferences({ same, largest, elsewhere, tolerance }) {
  if (same === 0) return `Probabilities differ by ${elsewhere.toFixed(4)} at most`;
  return (
    `Probabilities differ by ${largest.toFixed(4)} at most` +
    (largest <= tolerance ? "" : `, more than the tolerance of ${tolerance.toFixed(4)}`) +
    (elsewhere ? ` there, and by ${elsewhere.toFixed(4)} elsewhere` : "")
  );
}

async function check() {
  const verdict = element("verdict");
  verdict.className = "";
  verdict.textContent = "Loading the golden vectors";
  const golden = await json("../golden.json");
  const found = await selfCheck(state.classifier, golden, async (done, total) => {
    verdict.textContent = `${done} of ${total}`;
    await shown();
  });
  const { agree, ties, total } = found;
  verdict.textContent =
    `${agree} of ${total} labels agree${ties ? `, ${ties} more but for a tie` : ""}; ${wordInputs(found)}. ` +
    `${wordDifferences(found)}. p50 ${milliseconds(found.p50)}.`;
  verdict.className = found.verdict;
  verdict.dataset.found = JSON.stringify(found);
}

async function loadVariant(entry) {
  state.classifier?.delete();
  state.classifier = null;
  element("speed").textContent = element("verdict").textContent = "";
  element("verdict").className = "";
  const total = megabytes(entry.bytes);
  const onBytes = (count) => say(`Loading the model: ${megabytes(count)} of ${total} MB`);
  state.loading = new AbortController();
  refresh();
  try {
    state.classifier = await Classifier.load(state.settings, entry, { onBytes, signal: state.loading.signal });
  } finally {
    state.loading = null;
  }
  element("facts").textContent = `${entry.path}, ${total} MB, LiteRT.js in WebAssembly (${state.build}), one thread`;
  say("");
}

function watchText() {
  const box = element("text");
  let pause = 0;
  element("typing").hidden = false;
  box.addEventListener("input", () => {
    state.feature = box.value;
    clearTimeout(pause);
    pause = setTimeout(classify, TYPING_PAUSE);
  });
  const { max_length: length, long_texts: longTexts } = state.settings.preprocessor;
  element("how-text").textContent =
    longTexts === "windows"
      ? `Texts of more than ${length} tokens are read in overlapping windows, whose answers are averaged.`
      : `The first ${length} tokens count, as when the release was measured.`;
}

function takePicture(file) {
  if (!file) return;
  state.feature = file;
  classify();
}

function watchPictures() {
  const drop = element("drop");
  drop.hidden = false;
  element("file").addEventListener("change", (event) => takePicture(event.target.files[0]));
  // Everywhere, so that a picture that misses the field does not replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    takePicture(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => takePicture(event.clipboardData.files[0]));
  const { image_size: [height, width], aspect } = state.settings.preprocessor;
  const ways = { stretch: "stretched", crop: "cut from the centre", pad: "fitted with black borders" };
  element("how-image").textContent = `Pictures are ${ways[aspect]} to ${width} × ${height} pixels.`;
}

function chooseVariant() {
  const { variants } = state.settings;
  const chosen = new URLSearchParams(location.search).get("variant");
  const select = element("variant");
  for (const { variant, bytes } of variants) {
    select.append(new Option(`${variant} (${megabytes(bytes)} MB)`, variant));
  }
  const entry = variants.find(({ variant }) => variant === chosen) ?? variants[0];
  select.value = entry.variant;
  select.addEventListener("change", async () => {
    const next = variants.find(({ variant }) => variant === select.value);
    state.loading?.abort(new Error("another model was chosen"));
    await task(() => loadVariant(next), { holds: true });
    await classify();
  });
  return entry;
}

async function start() {
  element("server").remove();
  state.settings = await json("./settings.json");
  const { name, feature } = state.settings;
  document.title = name;
  element("name").textContent = name;
  document.body.dataset.feature = feature;
  (feature === "text" ? watchText : watchPictures)();
  const entry = chooseVariant();
  element("repeat").addEventListener("click", () => task(repeat, { holds: true }));
  element("check").addEventListener("click", () => task(check, { holds: true }));
  say("Loading the runtime");
  await busy(async () => (state.build = await startRuntime()), { holds: true });
  element("page").hidden = false;
  await task(() => loadVariant(entry), { holds: true });
  await classify();
}

start().catch((error) => {
  console.error(error);
  say(error.message, "bad");
  document.documentElement.dataset.state = "failed";
});
