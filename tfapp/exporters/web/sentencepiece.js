// SentencePiece's unigram model as the kernel of TF.Text has it, on the bytes of UTF-8.

import { Tokenizer } from "./tokens.js";

// Fields of ModelProto, SentencePiece, TrainerSpec and NormalizerSpec by their numbers.
const PIECES = 1;
const TRAINER = 2;
const NORMALIZER = 3;
const PIECE = { text: 1, score: 2, type: 3 };
const IDS = { unknown: 40, first: 41, last: 42, padding: 43 };
const RULES = { table: 2, prefix: 3, collapse: 4, escape: 5 };
const NORMAL = 1;
const USER_DEFINED = 4;

const UNKNOWN_PENALTY = 10;
const BLANKS = " \t\r\n";
const SPACE = "\u00e2\u0096\u0081"; // U+2581 in UTF-8, which stands for a space.

/** The fields of a protobuf message: pairs of a number and an integer, or the bytes of what is not one. */
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at];
      at += 1;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === 0) {
      yield [number, varint()];
      continue;
    }
    const size = kind === 2 ? varint() : kind === 5 ? 4 : 8;
    yield [number, bytes.subarray(at, at + size)];
    at += size;
  }
}

const floatOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);

/** Bytes as a string of one character each: strings can be keys and have prefixes. */
function binary(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return text;
}

/** The rules by which characters are replaced: a double-array trie of prefixes, and what becomes of each. */
class Replacements {
  constructor(table) {
    const size = table.length ? new DataView(table.buffer, table.byteOffset).getUint32(0, true) : 0;
    const trie = table.slice(4, 4 + size);
    this.units = new Uint32Array(trie.buffer, 0, size / 4);
    this.texts = table.subarray(4 + size);
  }

  /** The longest prefix at a place that has a rule: its length and what becomes of it; null where none has. */
  find(text, start) {
    if (!this.units.length) return null;
    let node = offsetOf(this.units[0]);
    let found = null;
    for (let at = start; at < text.length; at += 1) {
      const byte = text.charCodeAt(at);
      node ^= byte;
      const unit = this.units[node];
      // A leaf's own label has the highest bit, so that it equals no byte.
      if (unit === undefined || ((unit & 0x800000ff) >>> 0) !== byte) break;
      node ^= offsetOf(unit);
      if (unit & 0x100) found = { length: at + 1 - start, place: this.units[node] & 0x7fffffff };
    }
    if (found === null) return null;
    const end = this.texts.indexOf(0, found.place);
    return { length: found.length, text: binary(this.texts.subarray(found.place, end)) };
  }
}

const offsetOf = (unit) => (unit >>> 10) << ((unit & 0x200) >>> 6);

/** Splits text into the ids of its most probable pieces. */
export class SentencePiece extends Tokenizer {
  static file = "sentencepiece.model";

  /** Reads the file, a ModelProto. */
  static read(content, settings) {
    return new SentencePiece(content, settings);
  }

  /**
   * @param {Uint8Array} model The ModelProto.
   * @param {object} settings `max_length`, `long_texts`, `window_stride` and `max_windows` of the page's settings.
   */
  constructor(model, settings) {
    super(settings);
    this.ids = new Map();
    this.scores = [];
    this.longest = 1;
    this.rules = { table: new Uint8Array(0), prefix: 1, collapse: 1, escape: 1 };
    let lowest = 0;
    for (const [number, value] of fieldsOf(model)) {
      if (number === PIECES) {
        const { text, score, type } = pieceOf(value);
        if (type === NORMAL || type === USER_DEFINED) {
          this.ids.set(text, this.scores.length);
          this.longest = Math.max(this.longest, text.length);
          lowest = Math.min(lowest, score);
        }
        this.scores.push(score);
      } else if (number === TRAINER) Object.assign(this, named(value, IDS));
      else if (number === NORMALIZER) Object.assign(this.rules, named(value, RULES));
    }
    this.penalty = Math.fround(lowest - UNKNOWN_PENALTY);
    this.replacements = new Replacements(this.rules.table);
  }

  /** What becomes of a text before it is split, as bytes. */
  normalize(text) {
    const given = binary(new TextEncoder().encode(text));
    if (!given) return given;
    const whole = this.rules.prefix ? ` ${given}` : given;
    let replaced = "";
    for (let at = 0; at < whole.length; ) {
      const rule = this.replacements.find(whole, at);
      replaced += rule ? rule.text : whole[at];
      at += rule ? rule.length : 1;
    }
    if (this.rules.collapse) {
      replaced = replaced.replace(/[ \t\r\n]{2,}/g, " ");
      if (BLANKS.includes(replaced.at(-1) ?? "-")) replaced = replaced.slice(0, -1);
    }
    return this.rules.escape ? replaced.replace(/[ \t\r\n]/g, SPACE) : replaced;
  }

  /** The ids of a text, without special tokens. */
  tokenize(text) {
    const bytes = this.normalize(text);
    const count = bytes.length;
    // For each place, of the best way to it: its score, its last piece and where that begins.
    const scores = new Float32Array(count + 1);
    const lasts = new Int32Array(count + 1);
    const starts = new Int32Array(count + 1).fill(-1);
    const offer = (place, score, id, start) => {
      if (starts[place] >= 0 && !(scores[place] < score)) return;
      scores[place] = score;
      lasts[place] = id;
      starts[place] = start;
    };
    for (let at = 0; at < count; at += 1) {
      // Unknown bytes in a row are one piece.
      const merged = at > 0 && lasts[at] === this.unknown ? starts[at] : at;
      offer(at + 1, Math.fround(scores[at] + this.penalty), this.unknown, merged);
      // No piece begins within a character.
      if ((bytes.charCodeAt(at) & 0xc0) === 0x80) continue;
      const end = Math.min(count, at + this.longest);
      for (let stop = at + 1; stop <= end; stop += 1) {
        const id = this.ids.get(bytes.slice(at, stop));
        if (id !== undefined) offer(stop, Math.fround(scores[at] + this.scores[id]), id, at);
      }
    }
    const ids = [];
    for (let at = count; at > 0; at = starts[at]) ids.push(lasts[at]);
    return ids.reverse();
  }
}

function pieceOf(message) {
  const piece = { text: "", score: 0, type: NORMAL };
  for (const [number, value] of fieldsOf(message)) {
    if (number === PIECE.text) piece.text = binary(value);
    else if (number === PIECE.score) piece.score = floatOf(value);
    else if (number === PIECE.type) piece.type = value;
  }
  return piece;
}

/** The fields of a message that have a name here. */
function named(message, names) {
  const fields = new Map(fieldsOf(message));
  const known = Object.entries(names).filter(([, number]) => fields.has(number));
  return Object.fromEntries(known.map(([name, number]) => [name, fields.get(number)]));
}
