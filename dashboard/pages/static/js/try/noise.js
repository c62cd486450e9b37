// The farm's noise, number for number: NumPy's Philox4x64-10 (Salmon et al., SC 2011) and its ziggurat of 256
// layers for float32 (Marsaglia and Tsang 2000), keyed as nodes/engines/common/noise.py does.

const ROUNDS = 10;
const MULTIPLIERS = [[0xd2e7470e, 0xe14c6c93], [0xca5a8263, 0x95121157]];
const WEYL = [[0x9e3779b9, 0x7f4a7c15], [0xbb67ae85, 0x84caa73b]];
/** Added to the number of the frame that a window begins with: its latent stands for that frame alone. */
const ONE_FRAME = 2 ** 39;
/** Where the ziggurat's tail begins, and the area of each layer. */
const R = 3.654152885361009;
const AREA = 0.004928673233974652;

const fround = Math.fround;
const R_F = fround(R);
const INVERSE_R_F = fround(1 / R);

/** Numbers of 32 bits from Philox: the low half of each 64-bit word first. */
class Philox {
  /** @param {bigint} seed the key's first word  @param {number} frame of 40 bits, in its second */
  constructor(seed, frame) {
    this.key = [Number(seed >> 32n) >>> 0, Number(seed & 0xffffffffn), Math.floor(frame / 2 ** 32), frame >>> 0];
    this.counter = 0;
    this.buffer = new Uint32Array(8);
    this.at = 8;
  }

  next() {
    if (this.at === 8) this.block();
    return this.buffer[this.at++];
  }

  block() {
    // Four words of 64 bits, each a high and a low half; the counter stays below 2^53.
    this.counter += 1;
    let [k0h, k0l, k1h, k1l] = this.key;
    let x0h = Math.floor(this.counter / 2 ** 32), x0l = this.counter >>> 0;
    let x1h = 0, x1l = 0, x2h = 0, x2l = 0, x3h = 0, x3l = 0;
    for (let round = 0; round < ROUNDS; round++) {
      if (round) {
        [k0h, k0l] = added(k0h, k0l, WEYL[0]);
        [k1h, k1l] = added(k1h, k1l, WEYL[1]);
      }
      const [a3, a2, a1, a0] = product(MULTIPLIERS[0], x0h, x0l);
      const [b3, b2, b1, b0] = product(MULTIPLIERS[1], x2h, x2l);
      x0h = (b3 ^ x1h ^ k0h) >>> 0; x0l = (b2 ^ x1l ^ k0l) >>> 0;
      x2h = (a3 ^ x3h ^ k1h) >>> 0; x2l = (a2 ^ x3l ^ k1l) >>> 0;
      x1h = b1; x1l = b0;
      x3h = a1; x3l = a0;
    }
    this.buffer.set([x0l, x0h, x1l, x1h, x2l, x2h, x3l, x3h]);
    this.at = 0;
  }
}

const added = (/** @type {number} */ high, /** @type {number} */ low, /** @type {number[]} */ [byHigh, byLow]) => {
  const sum = low + byLow;
  return [(high + byHigh + (sum > 0xffffffff ? 1 : 0)) >>> 0, sum >>> 0];
};

/** Two numbers of 64 bits to one of 128, as four of 32, highest first. */
function product(/** @type {number[]} */ [ah, al], /** @type {number} */ bh, /** @type {number} */ bl) {
  const [ll1, ll0] = wide(al, bl), [lh1, lh0] = wide(al, bh), [hl1, hl0] = wide(ah, bl), [hh1, hh0] = wide(ah, bh);
  const first = ll1 + lh0 + hl0;
  const second = lh1 + hl1 + hh0 + Math.floor(first / 2 ** 32);
  return [(hh1 + Math.floor(second / 2 ** 32)) >>> 0, second >>> 0, first >>> 0, ll0];
}

/** Two numbers of 32 bits to one of 64, high and low. */
function wide(/** @type {number} */ a, /** @type {number} */ b) {
  const low = a * (b & 0xffff), high = a * (b >>> 16); // below 2^48: exact
  return [Math.floor((high + Math.floor(low / 65536)) / 65536), Math.imul(a, b) >>> 0];
}

/** The layers: below `sure` a draw is taken as it is, `width` scales it, `height` is the density at its edge. */
function layers() {
  const density = (/** @type {number} */ x) => Math.exp(-0.5 * x * x);
  const edges = new Float64Array(256);
  edges[255] = R;
  for (let i = 254; i > 0; i--) edges[i] = Math.sqrt(-2 * Math.log(density(edges[i + 1]) + AREA / edges[i + 1]));
  const sure = new Uint32Array(256), width = new Float32Array(256), height = new Float32Array(256);
  for (let i = 1; i < 256; i++) {
    sure[i] = Math.round((edges[i - 1] / edges[i]) * 2 ** 23);
    width[i] = edges[i] / 2 ** 23;
    height[i] = density(edges[i]);
  }
  // The lowest layer holds the tail too.
  sure[0] = Math.round(((R * density(R)) / AREA) * 2 ** 23);
  width[0] = AREA / density(R) / 2 ** 23;
  height[0] = 1;
  return { sure, width, height };
}

/** @type {ReturnType<typeof layers> | undefined} */
let tables;

/** One standard normal number, as NumPy's random_standard_normal_f draws it. */
function normal(/** @type {Philox} */ bits, /** @type {ReturnType<typeof layers>} */ { sure, width, height }) {
  const unit = () => (bits.next() >>> 8) / 2 ** 24;
  for (;;) {
    const drawn = bits.next();
    const layer = drawn & 0xff, magnitude = drawn >>> 9;
    const x = fround((drawn & 0x100 ? -1 : 1) * fround(magnitude * width[layer]));
    if (magnitude < sure[layer]) return x;
    if (layer === 0) {
      for (;;) {
        const beyond = fround(-INVERSE_R_F * fround(Math.log1p(-unit())));
        const y = fround(-fround(Math.log1p(-unit())));
        if (fround(y + y) > fround(beyond * beyond)) {
          const far = fround(R_F + beyond);
          return (magnitude >>> 8) & 1 ? -far : far;
        }
      }
    }
    const between = fround(fround(fround(height[layer - 1] - height[layer]) * unit()) + height[layer]);
    if (between < Math.exp(-0.5 * x * x)) return x;
  }
}

/**
 * Standard normal noise of latents, one stream for each.
 * @param {bigint} seed 0 to 2^64 - 1
 * @param {number[]} keys one of each latent: `windowKeys`
 * @param {number} count of numbers in a latent
 * @returns {Float32Array} of all, one latent after the other
 */
export function frameNoise(seed, keys, count) {
  tables ??= layers();
  const noise = new Float32Array(keys.length * count);
  keys.forEach((key, number) => {
    const bits = new Philox(seed, key);
    for (let i = 0; i < count; i++) noise[number * count + i] = normal(bits, /** @type {any} */ (tables));
  });
  return noise;
}

/** What the noise of a shot's first window is keyed by: its first frame alone, then each latent's last frame. */
export const windowKeys = (/** @type {number} */ frames, /** @type {number} */ framesPerLatent) => {
  const keys = [ONE_FRAME];
  for (let frame = framesPerLatent; frame < frames; frame += framesPerLatent) keys.push(frame);
  return keys;
};
