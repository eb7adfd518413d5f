// WordPiece as the release's own tokenizer has it: the tables say what that one makes of every character.

import { Tokenizer } from "./tokens.js";

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
export class WordPiece extends Tokenizer {
  static file = "vocab.txt";

  /** Reads the file, one piece a line. */
  static read(content, settings) {
    return new WordPiece(new TextDecoder().decode(content).split("\n").slice(0, -1), settings);
  }

  /**
   * @param {string[]} vocabulary Word pieces in the order of their ids.
   * @param {object} settings `max_length`, `long_texts`, `window_stride`, `max_windows`, `characters` and `replaced` of
   *   the page's settings.
   */
  constructor(vocabulary, settings) {
    super(settings);
    this.ids = new Map(vocabulary.map((piece, id) => [piece, id]));
    this.unknown = this.ids.get(UNKNOWN);
    this.first = this.ids.get("[CLS]");
    this.last = this.ids.get("[SEP]");
    this.padding = this.ids.get("[PAD]");
    this.longest = vocabulary.reduce((most, piece) => Math.max(most, piece.length), 1);
    this.marks = marksOf(settings.characters);
    this.replaced = replacementsOf(settings.characters);
    const [characters, readAs] = settings.replaced.map((text) => [...text]);
    this.readAs = new Map(characters.map((character, at) => [character, readAs[at]]));
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
      const piece = this.readAs.get(character) ?? character;
      if (mark & MARKED.separators) ids.push(this.ids.get(piece) ?? this.unknown);
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
}
