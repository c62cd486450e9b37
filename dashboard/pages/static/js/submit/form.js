// The form of a new video as values: what it holds, how it is kept, what it asks the API for.

/**
 * One picture or video on its way to the farm, or there.
 * @typedef {object} Input
 * @property {number} key
 * @property {string} name
 * @property {string} prompt
 * @property {number} progress of the upload, 0 to 1
 * @property {{id: string, kind: "image" | "video" | "audio", width: number, height: number, num_frames: number, fps: number | string | null, notes: string[], sound: {codec: string, end_s: number} | null} | null} upload
 * @property {Error | null} error
 */

/** Everything typed; "" is left to the farm. */
export const EMPTY = {
  model: "", preset: "plain", preview: false, prompt: "", one_prompt: true, seconds: "", fps: "", deliver_fps: "", size: "", fit: "crop", window_frames: "",
  mode: "auto", draft_model: "", negative_prompt: "", overlap_frames: "", num_inference_steps: "", guidance_scale: "", strength: "",
  seed: "", priority: "", weights: "", loras: "", weight_format: "", review: false,
};
/** @typedef {typeof EMPTY} Form */

const NUMBERS = /** @type {const} */ ([
  "seconds", "window_frames", "overlap_frames", "num_inference_steps", "guidance_scale", "strength", "seed", "priority",
]);
/** Names of files, with commas between them. */
const FILES = /** @type {const} */ (["weights", "loras"]);
const KEPT = "reelfarm-new-video";

/**
 * Files beside what a video starts from.
 * @typedef {object} Beside
 * @property {Input | null} audio
 * @property {Input | null} mask
 * @property {Input[]} references
 */

/**
 * The body of POST /plans and POST /jobs.
 * @param {Form} form
 * @param {Input[]} inputs all of them uploaded
 * @param {Beside} beside uploaded too
 */
export function requestOf(form, inputs, { audio, mask, references }) {
  /** @type {Record<string, unknown>} */
  const body = { inputs: inputs.map((input) => input.upload?.id) };
  // Between pictures there is one prompt less than pictures.
  const told = form.mode === "infill" ? inputs.slice(0, -1) : inputs;
  body.prompts = form.one_prompt || inputs.length < 2 ? [form.prompt] : told.map((input) => input.prompt);
  if (form.model) body.model = form.model;
  if (form.preset) body.preset = form.preset;
  if (form.preview) body.preview = true;
  if (form.mode !== "auto") body.mode = form.mode;
  if (form.draft_model) body.draft_model = form.draft_model;
  if (form.negative_prompt) body.negative_prompt = form.negative_prompt;
  if (form.fps) body.fps = form.fps;
  if (form.deliver_fps) body.deliver_fps = form.deliver_fps;
  if (form.size) [body.width, body.height] = form.size.split("x").map(Number);
  if (audio) body.audio = audio.upload?.id;
  if (mask) body.mask = mask.upload?.id;
  if (references.length) body.references = references.map((input) => input.upload?.id);
  if (form.review) body.review = true;
  if (form.fit !== "crop") body.fit = form.fit;
  for (const name of FILES) if (form[name].trim()) body[name] = form[name].split(",").map((file) => file.trim()).filter(Boolean);
  if (form.weight_format) body.weight_format = form.weight_format;
  for (const name of NUMBERS) if (form[name] !== "") body[name] = Number(form[name]);
  return body;
}

/** Kept while the tab is open, so that a look at another page costs nothing. */
export function keep(/** @type {Form} */ form, /** @type {Input[]} */ inputs, /** @type {Beside} */ { audio, mask, references }) {
  const there = (/** @type {Input | null} */ input) => (input?.upload ? input : null);
  const files = { inputs: inputs.filter(there), references: references.filter(there), audio: there(audio), mask: there(mask) };
  store(() => sessionStorage.setItem(KEPT, JSON.stringify({ form, ...files })));
}

export function forget() {
  store(() => sessionStorage.removeItem(KEPT));
}

/** @returns {{form: Form, inputs: Input[]} & Beside} */
export function kept() {
  const text = store(() => sessionStorage.getItem(KEPT));
  const { form = {}, inputs = [], audio = null, mask = null, references = [] } = text ? JSON.parse(text) : {};
  return { form: { ...EMPTY, ...form }, inputs, audio, mask, references };
}

function store(/** @type {() => any} */ action) {
  try {
    return action();
  } catch {
    return null; // storage may be forbidden
  }
}

/** Files of a drop or a paste. */
export function filesOf(/** @type {DataTransfer | null} */ transfer) {
  return [...(transfer?.files ?? [])].filter((file) => /^(image|video|audio)\//.test(file.type) || !file.type);
}
