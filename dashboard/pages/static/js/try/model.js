// tiny_wan in a worker: from a photo and a prompt to a clip's frames, by the farm's own steps.
import { Trouble, allKept, fetched, tidy } from "./files.js";
import { frameNoise, windowKeys } from "./noise.js";
import { Tokenizer, cleaned, toldPrompt } from "./prompt.js";
import { RUNTIMES } from "./runtimes.js";

/** @typedef {{width: number, height: number, frames: number, seed: bigint, prompt: string}} Wish */
/** @typedef {(stage: string, done: number, total: number) => void} OnProgress */

const NETWORKS = ["text", "encoder", "transformer", "decoder"];
/** More than that, and the threads wait for each other. */
const MOST_THREADS = 4;

/** @typedef {(typeof RUNTIMES)["wasm"]} Runtime */

/**
 * The model, ready.
 * @param {string} base where its files lie
 * @param {OnProgress} onProgress in bytes
 * @param {Runtime} [wanted] else the best that is here
 */
export async function loaded(base, onProgress, wanted) {
  if (!hasSimd()) throw new Trouble("simd");
  const facts = await manifest(base);
  const runtime = wanted ?? (await chosenRuntime());
  try {
    return await withRuntime(runtime, base, facts, onProgress);
  } catch (error) {
    if (runtime === RUNTIMES.wasm || error instanceof Trouble) throw error;
    return withRuntime(RUNTIMES.wasm, base, facts, onProgress); // the graphics card, or its driver, cannot do it
  }
}

async function withRuntime(/** @type {Runtime} */ runtime, /** @type {string} */ base, /** @type {any} */ facts, /** @type {OnProgress} */ onProgress) {
  const wanted = filesOf(runtime, facts);
  const total = wanted.reduce((sum, { bytes }) => sum + bytes, 0);
  let come = 0;
  const onBytes = (/** @type {number} */ bytes) => {
    come += bytes;
    onProgress("load", Math.min(come, total), total);
  };
  const ort = await import(runtime.module);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads();
  ort.env.wasm.wasmPaths = { mjs: new URL(runtime.glue, import.meta.url).href };
  ort.env.wasm.wasmBinary = await fetched(base, runtime.wasm, onBytes);
  const tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(await fetched(base, facts.files.tokenizer, onBytes))));
  /** @type {Record<string, any>} */
  const sessions = {};
  for (const name of NETWORKS) {
    const bytes = await fetched(base, facts.files[name], onBytes);
    sessions[name] = await ort.InferenceSession.create(bytes, { executionProviders: runtime.providers, graphOptimizationLevel: "all" });
  }
  onProgress("load", total, total);
  tidy(base, wanted).catch(() => {});
  return new TinyWan(ort, facts, tokenizer, sessions, runtime === RUNTIMES.gpu);
}

/** @returns {import("./files.js").WantedFile[]} */
const filesOf = (/** @type {Runtime} */ runtime, /** @type {any} */ facts) => [runtime.wasm, facts.files.tokenizer, ...NETWORKS.map((name) => facts.files[name])];

/** Whether a visitor was here before, so that nothing large is fetched. */
export async function isKept(/** @type {string} */ base) {
  const [runtime, facts] = await Promise.all([chosenRuntime(), manifest(base)]);
  return allKept(base, filesOf(runtime, facts));
}

/** What computes where a graphics card failed. */
export const withoutCard = (/** @type {string} */ base, /** @type {OnProgress} */ onProgress) => loaded(base, onProgress, RUNTIMES.wasm);

/** How many threads compute: one where the page's server does not isolate it, which shared memory needs. */
export const threads = () => (globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1);

async function manifest(/** @type {string} */ base) {
  let answer;
  try {
    answer = await fetch(new URL("manifest.json", base), { cache: "no-cache" });
  } catch {
    throw new Trouble("offline", "manifest.json");
  }
  if (!answer.ok) throw new Trouble(answer.status === 404 ? "unbuilt" : "offline", `manifest.json: ${answer.status}`);
  return answer.json();
}

async function chosenRuntime() {
  const gpu = "Suspending" in WebAssembly && (await /** @type {any} */ (navigator).gpu?.requestAdapter().catch(() => null));
  return gpu && !gpu.info?.isFallbackAdapter ? RUNTIMES.gpu : RUNTIMES.wasm;
}

/** Whether WebAssembly has 128-bit vectors: a module with one instruction of them is valid. */
const hasSimd = () => WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]));

class TinyWan {
  /** @param {any} ort @param {any} facts @param {Tokenizer} tokenizer @param {Record<string, any>} sessions @param {boolean} onCard */
  constructor(ort, facts, tokenizer, sessions, onCard) {
    this.onCard = onCard;
    this.ort = ort;
    this.facts = facts;
    this.tokenizer = tokenizer;
    this.sessions = sessions;
  }

  /**
   * A clip that begins with a picture.
   * @param {Uint8ClampedArray} first RGBA, of the wish's size
   * @param {Wish} wish
   * @param {OnProgress} onProgress
   * @returns {Promise<Uint8ClampedArray>} RGBA of all frames
   */
  async made(first, wish, onProgress) {
    const { facts } = this;
    const [height, width] = [wish.height / facts.pixels_per_latent, wish.width / facts.pixels_per_latent];
    const count = (wish.frames - 1) / facts.frames_per_latent + 1;
    const shape = { channels: facts.latent_channels, count, height, width };
    const steps = facts.steps.length;
    onProgress("encode", 0, 1);
    const text = await this.text(wish.prompt);
    const condition = await this.condition(first, wish, shape);
    onProgress("encode", 1, 1);
    const latents = noise(wish.seed, wish.frames, facts.frames_per_latent, shape);
    const sample = new Float32Array(latents.length + condition.length);
    sample.set(condition, latents.length);
    for (let done = 0; done < steps; done++) {
      onProgress("denoise", done, steps);
      const [sigma, next, timestep] = facts.steps[done];
      sample.set(latents);
      const velocity = await this.run("transformer", {
        latents: [sample, [1, sample.length / (count * height * width), count, height, width]],
        timestep: [Float32Array.of(timestep), [1]],
        text: [text, [1, facts.max_sequence_length, text.length / facts.max_sequence_length]],
      });
      for (let i = 0; i < latents.length; i++) latents[i] += (next - sigma) * velocity[i];
    }
    if (!latents.every(Number.isFinite)) throw new Error("the steps gave values that are not finite");
    onProgress("denoise", steps, steps);
    onProgress("decode", 0, 1);
    const clip = await this.run("decoder", { latents: [latents, [1, shape.channels, count, height, width]] });
    onProgress("decode", 1, 1);
    return shown(clip, wish.frames * wish.height * wish.width);
  }

  async text(/** @type {string} */ prompt) {
    const most = this.facts.max_sequence_length;
    const ids = this.tokenizer.ids(toldPrompt(this.facts, cleaned(prompt), this.facts.fps), most);
    const filled = new BigInt64Array(most), mask = new BigInt64Array(most);
    ids.forEach((id, place) => {
      filled[place] = BigInt(id);
      mask[place] = 1n;
    });
    return this.run("text", { ids: [filled, [1, most]], mask: [mask, [1, most]] });
  }

  /** Which frames are known, a channel for each of a latent's, and the latents of a clip that has no others. */
  async condition(/** @type {Uint8ClampedArray} */ first, /** @type {Wish} */ wish, /** @type {Shape} */ { count, height, width }) {
    const pixels = wish.height * wish.width;
    const clip = new Float32Array(3 * wish.frames * pixels);
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < pixels; i++) clip[c * wish.frames * pixels + i] = first[4 * i + c] / 127.5 - 1;
    }
    const latents = await this.run("encoder", { clip: [clip, [1, 3, wish.frames, wish.height, wish.width]] });
    const stride = this.facts.frames_per_latent;
    const found = new Float32Array(stride * count * height * width + latents.length);
    for (let flag = 0; flag < stride; flag++) {
      const from = flag * count * height * width;
      found.fill(1, from, from + height * width); // the first latent is the first frame alone
    }
    found.set(latents, found.length - latents.length);
    return found;
  }

  /** @param {string} name @param {Record<string, [any, number[]]>} inputs @returns {Promise<Float32Array>} */
  async run(name, inputs) {
    const { Tensor } = this.ort;
    const types = { BigInt64Array: "int64", Float32Array: "float32" };
    const feeds = Object.fromEntries(Object.entries(inputs).map(([key, [data, dims]]) => [key, new Tensor(types[data.constructor.name], data, dims)]));
    const { made } = await this.sessions[name].run(feeds);
    const data = await made.getData();
    made.dispose?.();
    return data;
  }
}

/** @typedef {{channels: number, count: number, height: number, width: number}} Shape of latents */

/** The farm's noise (C, L, h, w), which is drawn latent by latent. */
export function noise(/** @type {bigint} */ seed, /** @type {number} */ frames, /** @type {number} */ stride, /** @type {Shape} */ { channels, count, height, width }) {
  const plane = height * width;
  const drawn = frameNoise(seed, windowKeys(frames, stride), channels * plane);
  const turned = new Float32Array(drawn.length);
  for (let l = 0; l < count; l++) {
    for (let c = 0; c < channels; c++) {
      const from = (l * channels + c) * plane;
      turned.set(drawn.subarray(from, from + plane), (c * count + l) * plane);
    }
  }
  return turned;
}

/** Frames about [-1, 1], by channels, as pixels. */
function shown(/** @type {Float32Array} */ clip, /** @type {number} */ pixels) {
  const made = new Uint8ClampedArray(4 * pixels).fill(255);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < pixels; i++) made[4 * i + c] = (clip[c * pixels + i] / 2 + 0.5) * 255; // cut and rounded
  }
  return made;
}
