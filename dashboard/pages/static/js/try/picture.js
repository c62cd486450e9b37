// A photo at the size of a video, as the farm fits it: cut evenly, scaled as OpenCV scales (nodes/work/inputs.py).

/** The farm makes larger pictures smaller first, too. */
const MOST_SIDE = 4096;

/**
 * @param {Blob} file
 * @returns {Promise<{data: Uint8ClampedArray, width: number, height: number}>} RGBA, upright, on white
 */
export async function decoded(file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, MOST_SIDE / Math.max(image.width, image.height));
  const [width, height] = [Math.round(image.width * scale), Math.round(image.height * scale)];
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  image.close();
  return context.getImageData(0, 0, width, height);
}

/**
 * Cut to the shape of `width` x `height` and scaled to it.
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image
 * @param {number} width
 * @param {number} height
 * @returns {Uint8ClampedArray} RGBA
 */
export function fitted(image, width, height) {
  if (image.width === width && image.height === height) return image.data.slice();
  const scale = Math.max(width / image.width, height / image.height);
  const wide = Math.max(width, even(image.width * scale)), high = Math.max(height, even(image.height * scale));
  const kernel = wide * high < image.width * image.height ? area : lanczos;
  const left = Math.floor((wide - width) / 2), top = Math.floor((high - height) / 2);
  return scaled(image, kernel(image.width, wide).slice(left, left + width), kernel(image.height, high).slice(top, top + height));
}

/** As Python rounds: half to even. */
const even = (/** @type {number} */ x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** @typedef {{first: number, weights: number[]}} Taps what one place of a line is made of */

/** @returns {Taps[]} each place: the mean of what it covers */
function area(/** @type {number} */ from, /** @type {number} */ to) {
  const step = from / to;
  return Array.from({ length: to }, (_, place) => {
    const begin = place * step, end = Math.min(begin + step, from);
    const first = Math.floor(begin + 1e-9), last = Math.ceil(end - 1e-9);
    const weights = [];
    for (let i = first; i < last; i++) weights.push((Math.min(i + 1, end) - Math.max(i, begin)) / (end - begin));
    return { first, weights };
  });
}

/** @returns {Taps[]} Lanczos of eight places */
function lanczos(/** @type {number} */ from, /** @type {number} */ to) {
  const sinc = (/** @type {number} */ x) => (Math.abs(x) < 1e-9 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  return Array.from({ length: to }, (_, place) => {
    const centre = ((place + 0.5) * from) / to - 0.5, first = Math.floor(centre) - 3;
    const weights = Array.from({ length: 8 }, (__, i) => sinc(centre - first - i) * sinc((centre - first - i) / 4));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** @param {{data: Uint8ClampedArray, width: number, height: number}} image @param {Taps[]} across @param {Taps[]} down */
function scaled({ data, width, height }, across, down) {
  const made = new Uint8ClampedArray(across.length * down.length * 4).fill(255);
  const within = (/** @type {number} */ i, /** @type {number} */ size) => Math.min(Math.max(i, 0), size - 1);
  /** Rows that were scaled across, while those below need them. @type {Map<number, Float32Array>} */
  const rows = new Map();
  const row = (/** @type {number} */ y) => {
    const there = rows.get(y);
    if (there) return there;
    const fresh = new Float32Array(across.length * 3);
    across.forEach(({ first, weights }, x) => weights.forEach((weight, i) => {
      const at = (y * width + within(first + i, width)) * 4;
      for (let c = 0; c < 3; c++) fresh[x * 3 + c] += weight * data[at + c];
    }));
    rows.set(y, fresh);
    return fresh;
  };
  const sums = new Float32Array(across.length * 3);
  down.forEach(({ first, weights }, y) => {
    for (const known of rows.keys()) if (known < first) rows.delete(known);
    sums.fill(0);
    weights.forEach((weight, i) => {
      const source = row(within(first + i, height));
      for (let k = 0; k < sums.length; k++) sums[k] += weight * source[k];
    });
    for (let x = 0; x < across.length; x++) {
      for (let c = 0; c < 3; c++) made[(y * across.length + x) * 4 + c] = sums[x * 3 + c]; // rounds half to even
    }
  });
  return made;
}
