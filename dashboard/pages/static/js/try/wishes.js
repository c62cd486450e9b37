// What may be wished for, and what is said meanwhile: values and words.
import { bytes, share } from "../format.js";

export const FRAMES = [9, 17, 33];
/** Width and height; the first ones are the quickest. */
export const SIZES = [[128, 128], [192, 128], [128, 192], [256, 256], [384, 256], [256, 384]];
/** Beyond that a tab has too little memory. */
const MOST_PIXELS = 17 * 384 * 256;
const SMALL = 3;

export const MODEL_WORDS = "It knows how a camera moves: pan, tilt, zoom, roll, hold still, slowly or quickly; falling snow; drifting clouds or water. Other words mean nothing to it.";

export const fits = (/** @type {number} */ frames, /** @type {number} */ width, /** @type {number} */ height) => frames * width * height <= MOST_PIXELS;

/** The small size that cuts least of a picture of this shape. */
export function sizeFor(/** @type {number} */ shape) {
  const away = (/** @type {number[]} */ [width, height]) => Math.abs(Math.log((width / height) / shape));
  const [width, height] = SIZES.slice(0, SMALL).reduce((best, size) => (away(size) < away(best) ? size : best));
  return `${width}x${height}`;
}

/** Where each stage begins and ends, as shares of the work. */
const SHARES = { start: [0, 0], load: [0, 1], encode: [0, 0.15], denoise: [0.15, 0.65], decode: [0.65, 1] };

/** @param {{stage: string, done: number, total: number} | null} progress @returns {[number, string]} a share, and words */
export function progressOf(progress) {
  if (!progress) return [0, ""];
  const { stage, done, total } = progress;
  const [from, to] = SHARES[stage];
  const words = {
    start: "Starting",
    load: done < total ? `Fetching the model, ${bytes(done)} of ${bytes(total)}` : "Making the model ready",
    encode: "Reading the photo and the prompt",
    denoise: `Step ${Math.min(done + 1, total)} of ${total}`,
    decode: "Drawing the frames",
  };
  return [from + (to - from) * (done / total), `${words[stage]}, ${share(from + (to - from) * (done / total))}`];
}

/** What went wrong, and what to do. */
export function troubleOf(/** @type {string} */ code, /** @type {string} */ detail, /** @type {boolean} */ onFarm) {
  const known = {
    simd: "This browser is too old for it: it lacks the SIMD of WebAssembly. Chrome 91, Firefox 89 and Safari 16.4 have it, and what came after them.",
    memory: "This tab has too little memory for that. Choose a smaller size or fewer frames, or close other tabs, and make it again.",
    damaged: `${detail} came damaged twice. Reload the page; if that does not help, whoever runs this page should write its files again.`,
    offline: `${detail} could not be fetched. Look at the connection, then make it again: what has come already is kept.`,
    missing: `${detail} is not where it should be. Whoever runs this page should write its files again.`,
    unbuilt: onFarm ? "The files of the model are not here yet. On the farm's machine, run: farm export-page" : "The files of the model are not here. Write them again with: farm export-page FOLDER",
    picture: "This browser cannot read that picture. Take a JPEG, PNG or WebP.",
    worker: "The page's worker could not be started. Reload the page.",
  };
  return known[code] ?? `That went wrong: ${detail}. Reload the page and make it again.`;
}
