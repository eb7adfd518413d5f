// What every tokenizer of texts shares: windows, special tokens, the model's tensors, and averaged answers.

/** Makes rows of ids of texts; a subclass has `tokenize`, and the ids `first`, `last` and `padding`. */
export class Tokenizer {
  /** @param {object} settings `max_length`, `long_texts`, `window_stride`, `max_windows` of the page's settings. */
  constructor(settings) {
    this.settings = settings;
  }

  /** The rows of ids that a text is to the model: one, or one a window; with special tokens, not padded. */
  encode(text) {
    const { max_length: length, long_texts: longTexts, window_stride: stride, max_windows: most } = this.settings;
    const body = this.tokenize(text);
    const room = length - 2;
    const over = Math.max(0, body.length - room);
    const count = longTexts === "windows" ? Math.min(1 + Math.ceil(over / stride), most) : 1;
    return Array.from({ length: count }, (_, window) => {
      const start = window * stride;
      return [this.first, ...body.slice(start, start + room), this.last];
    });
  }

  /** The tensors of a row, by name, padded to the model's length. */
  tensors(row) {
    const length = this.settings.max_length;
    return {
      token_ids: Int32Array.from({ length }, (_, at) => row[at] ?? this.padding),
      padding_mask: new Int32Array(length).fill(1, 0, row.length),
      segment_ids: new Int32Array(length),
    };
  }
}

/** Averages the logarithms of the probabilities of a text's windows, as the release does. */
export function averaged(rows) {
  if (rows.length === 1) return rows[0];
  const means = rows[0].map(
    (_, at) => rows.reduce((sum, row) => sum + Math.log(Math.max(row[at], 1e-37)), 0) / rows.length,
  );
  const highest = Math.max(...means);
  const powers = means.map((mean) => Math.exp(mean - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
