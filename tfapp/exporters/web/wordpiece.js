// WordPiece as the release's own tokenizer has it: the tables say what that one makes of every character.

const UNKNOWN = "[UNK]";
const MOST_BYTES = 100; // A longer word is unknown.
const HANGUL_FIRST = 0xac00;
const HANGUL_LAST = 0xd7a3;

const MARKED = { removed: 1, spaces: 2, separators: 4 };

/** One byte a code point, with the bits of the ranges that it lies in. */
function marksOf(tables) {
  const marks = new Uint8Array(0x110000);
  for (const [name, bit] of Object.entries(MARKED)) {
    const ranges = tables[name];
    for (let at = 0; at < ranges.length; at += 2) {
      for (let point = ranges[at]; point < ranges[at] + ranges[at + 1]; point += 1) marks[point] |= bit;
    }
  }
  return marks;
}

function replacementsOf(tables) {
  const replaced = new Map();
  for (const [first, ...texts] of tables.replaced) {
    texts.forEach((text, index) => replaced.set(first + index, text));
  }
  return replaced;
}

function bytesOf(character) {
  const point = character.codePointAt(0);
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/** Splits text into the ids of word pieces. */
export class WordPiece {
  /**
   * @param {string[]} vocabulary Word pieces in the order of their ids.
   * @param {object} settings `max_length`, `long_texts`, `window_stride`, `max_windows` and `characters` of
   *   the page's settings.
   */
  constructor(vocabulary, settings) {
    this.settings = settings;
    this.ids = new Map(vocabulary.map((piece, id) => [piece, id]));
    this.unknown = this.ids.get(UNKNOWN);
    this.first = this.ids.get("[CLS]");
    this.last = this.ids.get("[SEP]");
    this.padding = this.ids.get("[PAD]");
    this.longest = vocabulary.reduce((most, piece) => Math.max(most, piece.length), 1);
    this.marks = marksOf(settings.characters);
    this.replaced = replacementsOf(settings.characters);
  }

  /** What becomes of a text before it is split: lower case and no accents, where the model was trained so. */
  normalize(text) {
    const { hangul } = this.settings.characters;
    let normal = "";
    for (const character of text.replace(/\p{Surrogate}/gu, "\ufffd")) {
      const point = character.codePointAt(0);
      if (this.marks[point] & MARKED.removed) continue;
      if (hangul && point >= HANGUL_FIRST && point <= HANGUL_LAST) normal += character.normalize("NFD");
      else normal += this.replaced.get(point) ?? character;
    }
    return normal;
  }

  /** The ids of a text, without special tokens. */
  tokenize(text) {
    const ids = [];
    let word = [];
    const finish = () => {
      if (word.length) ids.push(...this.pieces(word));
      word = [];
    };
    for (const character of this.normalize(text)) {
      const mark = this.marks[character.codePointAt(0)];
      if (!(mark & (MARKED.spaces | MARKED.separators))) {
        word.push(character);
        continue;
      }
      finish();
      if (mark & MARKED.separators) ids.push(this.ids.get(character) ?? this.unknown);
    }
    finish();
    return ids;
  }

  /** The ids of a word: the longest piece that fits, again and again; unknown where none does. */
  pieces(word) {
    if (word.reduce((bytes, character) => bytes + bytesOf(character), 0) > MOST_BYTES) return [this.unknown];
    const ids = [];
    for (let start = 0; start < word.length; ) {
      const prefix = start ? "##" : "";
      let end = Math.min(word.length, start + this.longest);
      while (end > start && !this.ids.has(prefix + word.slice(start, end).join(""))) end -= 1;
      if (end === start) return [this.unknown];
      ids.push(this.ids.get(prefix + word.slice(start, end).join("")));
      start = end;
    }
    return ids;
  }

  /** The rows of ids that a text is to the model: one, or one a window; with [CLS] and [SEP], not padded. */
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
