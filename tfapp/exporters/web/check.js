// The release's golden vectors, answered here and compared with what was noted when it was exported.

import { best, quantile } from "./runtime.js";

// What a picture that a browser decodes to other pixels than the release did may move a probability by.
const ELSEWHERE = 0.2;

/** Whether the page made the model's inputs exactly as the release did; null where that cannot be told. */
async function same(prepared, row) {
  if (row.token_ids) return JSON.stringify(prepared.tokens) === JSON.stringify(row.token_ids);
  // Browsers offer checksums over HTTPS and on this very machine only.
  if (!globalThis.crypto?.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", prepared.pixels);
  return row.pixels_sha256 === Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function featureOf(row) {
  if (row.text !== undefined) return row.text;
  return new Blob([Uint8Array.from(atob(row.image_bytes), (character) => character.charCodeAt(0))]);
}

/**
 * Answers the golden vectors.
 *
 * @returns {Promise<object>} `total`; `agree`, how many labels are those noted for this variant; `ties`, how
 *   many others were noted as probable as the label but for the tolerance; `same`, how many inputs are exactly
 *   the release's, or null; `largest` and `elsewhere`, the largest difference of a
 *   probability where they are and where they are not (all are, where it cannot be told); `tolerance`, what
 *   counts as the same answer; `verdict`, see `judge`; `p50` in milliseconds.
 */
export async function selfCheck(classifier, golden, onProgress) {
  const { variant } = classifier.entry;
  const tolerance = golden.tolerance[variant];
  const found = { total: golden.inputs.length, agree: 0, ties: 0, same: 0, largest: 0, elsewhere: 0, tolerance };
  const times = [];
  for (const [number, row] of golden.inputs.entries()) {
    const prepared = await classifier.prepare(featureOf(row));
    const started = performance.now();
    const answer = await classifier.answer(prepared);
    times.push(performance.now() - started);
    const expected = golden.answers[variant]?.[number] ?? row.probabilities;
    const known = await same(prepared, row);
    const gap = Math.max(...answer.map((value, at) => Math.abs(value - expected[at])));
    if (best(answer) === best(expected)) found.agree += 1;
    else if (expected[best(answer)] >= Math.max(...expected) - tolerance) found.ties += 1;
    found.same = known === null ? null : found.same + known;
    if (known === false) found.elsewhere = Math.max(found.elsewhere, gap);
    else found.largest = Math.max(found.largest, gap);
    await onProgress(number + 1, found.total);
  }
  return { ...found, verdict: judge(found, classifier.settings.feature), p50: quantile(times, 0.5) };
}

/** "bad" for other labels or inputs than the release's, "good" for its answers; "" for what lies between. */
export function judge({ total, agree, ties, same, largest, elsewhere, tolerance }, feature) {
  // Of texts each must be the same; of pictures some formats leave room, but not for all of them to differ.
  const fewest = feature === "text" ? total : 1;
  if (agree + ties < total || (same !== null && same < fewest)) return "bad";
  return largest <= tolerance && elsewhere <= Math.max(ELSEWHERE, tolerance) ? "good" : "";
}
