// Prompts as the farm's text encoder reads them: mended, with the rate of frames before them, in pieces.

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const LIGATURES = { "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "ſt", "\ufb06": "st" };
const SPACE = "\u2581";

/**
 * Mended Unicode, no entities, single spaces: `cleaned` of nodes/engines/wan/text.py, but for text that was once
 * decoded wrongly, which is left as it is.
 */
export function cleaned(/** @type {string} */ prompt) {
  const mended = unescaped(prompt)
    .replace(/[\ufb00-\ufb06]/g, (found) => LIGATURES[found])
    .replace(/[\uff01-\uff5e]/g, (found) => String.fromCharCode(found.charCodeAt(0) - 0xfee0))
    .replace(/[\u02bc\u2018-\u201b]/g, "'").replace(/[\u201c-\u201f]/g, '"')
    // eslint-disable-next-line no-control-regex
    .replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
    .normalize("NFC");
  return unescaped(unescaped(mended)).replace(/\s+/g, " ").trim();
}

const unescaped = (/** @type {string} */ text) => text.replace(/&(?:#x([0-9a-f]+)|#([0-9]+)|(amp|lt|gt|quot|apos|nbsp));/gi, (all, hex, decimal, name) => {
  if (name) return ENTITIES[name.toLowerCase()];
  const code = hex ? parseInt(hex, 16) : Number(decimal);
  return code > 0 && code < 0x110000 ? String.fromCodePoint(code) : all;
});

/** What the encoder reads of a prompt; `template` is Python's, of {fps:g} and {prompt}. */
export function toldPrompt(/** @type {{prompt_template: string, told_fps: number[]}} */ facts, /** @type {string} */ prompt, /** @type {number} */ fps) {
  const away = (/** @type {number} */ rate) => Math.max(rate / fps, fps / rate);
  const told = facts.told_fps.length ? facts.told_fps.reduce((best, rate) => (away(rate) < away(best) ? rate : best)) : fps;
  return facts.prompt_template.replace("{fps:g}", String(told)).replace("{prompt}", () => prompt);
}

/** The unigram tokenizer of a tokenizer.json (Kudo 2018): the pieces of a word whose scores add up to most. */
export class Tokenizer {
  /** @param {any} json */
  constructor(json) {
    const { vocab, unk_id } = json.model;
    this.unknown = unk_id;
    this.pieces = new Map(vocab.map((/** @type {[string, number]} */ [piece, score], /** @type {number} */ id) => [piece, { id, score }]));
    this.longest = Math.max(...vocab.map((/** @type {[string, number]} */ [piece]) => [...piece].length));
    this.unknownScore = Math.min(...vocab.map((/** @type {[string, number]} */ [, score]) => score)) - 10;
    this.special = json.added_tokens.map((/** @type {{content: string}} */ { content }) => content);
    this.end = this.pieces.get("</s>")?.id;
  }

  /** Ids of a text, its end among them, at most `most`. */
  ids(/** @type {string} */ text, /** @type {number} */ most) {
    const parts = text.split(new RegExp(`(${this.special.join("|")})`));
    const found = parts.flatMap((part) => (this.special.includes(part) ? [this.pieces.get(part)?.id]
      : part.split(/\s+/).filter(Boolean).flatMap((word) => words(word).flatMap((each) => this.split(each)))));
    return [...found.slice(0, most - 1), this.end];
  }

  /** @returns {number[]} */
  split(/** @type {string} */ word) {
    const letters = [...word];
    /** @type {{score: number, from: number, id: number}[]} */
    const best = [{ score: 0, from: 0, id: -1 }];
    for (let start = 0; start < letters.length; start++) {
      const before = best[start].score;
      let alone = false;
      let piece = "";
      for (let end = start + 1; end <= Math.min(letters.length, start + this.longest); end++) {
        piece += letters[end - 1];
        const known = this.pieces.get(piece);
        if (!known) continue;
        alone ||= end === start + 1;
        if (!best[end] || before + known.score > best[end].score) best[end] = { score: before + known.score, from: start, id: known.id };
      }
      const score = before + this.unknownScore;
      if (!alone && (!best[start + 1] || score > best[start + 1].score)) best[start + 1] = { score, from: start, id: this.unknown };
    }
    const ids = [];
    for (let at = letters.length; at > 0; at = best[at].from) {
      // Unknown letters in a row are one token.
      if (best[at].id !== this.unknown || ids[0] !== this.unknown) ids.unshift(best[at].id);
    }
    return ids;
  }
}

/** A word begins with the mark of a space, and wherever it holds one. */
const words = (/** @type {string} */ word) => (word.startsWith(SPACE) ? word : SPACE + word).split(new RegExp(`(?=${SPACE})`));
