// The settings of a new video. What no worker can run is greyed, with the reason beside it.
import { html, useId } from "../html.js";
import { bytes, words } from "../format.js";

/** @typedef {import("./form.js").Form} Form */
/** @typedef {{key: string, need_bytes: number | null, runnable: boolean, reason: string | null}} Choice */

const MODE_WORDS = {
  auto: "The farm chooses",
  independent: "Segments at once, each from its own frame",
  chain: "Each segment starts where the last one ended",
  refine: "A quick draft first, then all segments at once",
  infill: "Keyframes first, then all segments between them at once",
  co_denoise: "Windows fused while they are denoised",
};

const FORMATS = { "": "What fits here", bf16: "16 bits", float8: "float8", int8: "int8" };

const FITS = {
  crop: ["Crop", "What stands over the frame's shape is cut off, evenly on both sides."],
  pad: ["Pad", "All of the picture is kept, between black bars."],
  stretch: ["Stretch", "All of the picture fills the frame; shapes in it change."],
};

/**
 * @param {{form: Form, set: (change: Partial<Form>) => void, models: any[] | null, presets: any[],
 *   choices: any, wrong: string | null, isVideo: boolean, runs: any}} props runs: what is said of the model
 */
export const Settings = ({ form, set, models, presets, choices, wrong, isVideo, runs }) => html`
  <fieldset class="presets">
    <legend class="legend">Quality</legend>
    <div class="preset-grid">${presets.map((preset) => {
      const choice = choices?.presets.find((/** @type {any} */ c) => c.preset === preset.name);
      const refused = choice != null && !choice.runnable;
      return html`<label key=${preset.name} class=${refused ? "preset refused" : "preset"}>
      <input type="radio" name="preset" value=${preset.name} checked=${form.preset === preset.name} disabled=${refused} onChange=${() => set({ preset: preset.name })} />
      <span><strong>${preset.title}</strong><small>${preset.description}</small>${refused && html`<small class="why">${choice.reason}</small>`}</span>
    </label>`;
    })}</div>
  </fieldset>
  <div class="field-grid">
    <${Number_} label="Length, seconds" name="seconds" form=${form} set=${set} wrong=${wrong} min="0.1" step="0.1" placeholder=${isVideo ? "the whole video" : "the model's own"} />
    <${Text} label="Frames a second" name="fps" form=${form} set=${set} wrong=${wrong} placeholder=${isVideo ? "the video's own" : "the model's own"} />
    <${Text} label="Delivered frames a second" name="deliver_fps" form=${form} set=${set} wrong=${wrong} placeholder="as rendered" title="Those between the rendered ones are interpolated" />
    <label class="field"><span>Model</span>
      <select value=${form.model} onChange=${(/** @type {any} */ event) => set({ model: event.target.value })}>
        ${(models ?? []).map((model) => html`<option key=${model.model} value=${model.model}>${model.model}</option>`)}
      </select></label>
  </div>
  ${runs}
  <div class="stack choice-rows">
    <${Choices} title="Size" name="size" value=${form.size} auto="The model's own" unit="" choices=${choices?.sizes.map((/** @type {any} */ c) => ({ ...c, key: `${c.width}x${c.height}` }))} onChange=${(/** @type {string} */ size) => set({ size })} />
    <${Fit} value=${form.fit} onChange=${(/** @type {string} */ fit) => set({ fit })} />
    <${Choices} title="Window" name="window_frames" value=${form.window_frames} auto="The model's own" unit="frames" choices=${choices?.windows.map((/** @type {any} */ c) => ({ ...c, key: String(c.window_frames) }))}
      onChange=${(/** @type {string} */ value) => set({ window_frames: value })} />
    <${Choices} title="Mode" name="mode" value=${form.mode === "auto" ? "" : form.mode} auto=${MODE_WORDS.auto} unit="" hints=${MODE_WORDS}
      choices=${choices?.modes.map((/** @type {any} */ c) => ({ ...c, key: c.mode }))} onChange=${(/** @type {string} */ value) => set({ mode: value || "auto" })} />
    <label class="choice"><input type="checkbox" name="review" checked=${form.review} aria-invalid=${wrong === "review" || undefined}
      onChange=${(/** @type {any} */ event) => set({ review: event.target.checked })} />
      <span>Wait for me after the keyframes<small>Look at them, make some again or put your own in their place before the video is rendered. Modes infill and refine have some.</small></span></label>
  </div>
  <details>
    <summary>More settings</summary>
    <div class="stack">
      <${Text} label="What should not be seen" name="negative_prompt" form=${form} set=${set} wrong=${wrong} />
      <div class="field-grid">
        ${!isVideo && html`<label class="field"><span>Model of the draft</span>
          <select name="draft_model" value=${form.draft_model} aria-invalid=${wrong === "draft_model" || undefined}
            title="A lighter model for the keyframes of infill, which the other refines and fills between"
            onChange=${(/** @type {any} */ event) => set({ draft_model: event.target.value })}>
            <option value="">the same</option>
            ${(models ?? []).filter((model) => model.takes.includes("image")).map((model) => html`<option key=${model.model} value=${model.model}>${model.model}</option>`)}
          </select></label>`}
        <${Number_} label="Denoising steps" name="num_inference_steps" form=${form} set=${set} wrong=${wrong} min="1" placeholder="the preset's" />
        <${Number_} label="Guidance scale" name="guidance_scale" form=${form} set=${set} wrong=${wrong} min="0" step="0.1" placeholder="the model's own" />
        <${Number_} label="Strength of the change" name="strength" form=${form} set=${set} wrong=${wrong} min="0.01" step="0.01" placeholder="the model's own" />
        <${Number_} label="Overlap, frames" name="overlap_frames" form=${form} set=${set} wrong=${wrong} min="0" placeholder="the model's own" />
        <${Number_} label="Seed" name="seed" form=${form} set=${set} wrong=${wrong} min="0" placeholder="0" />
        <${Number_} label="Priority, 0 to 100" name="priority" form=${form} set=${set} wrong=${wrong} min="0" placeholder="50" />
      </div>
      <${Text} label="Weight files, with commas between" name="weights" form=${form} set=${set} wrong=${wrong} placeholder="the model's own; or high=a.gguf, low=b.gguf" />
      <${Text} label="LoRAs, with commas between" name="loras" form=${form} set=${set} wrong=${wrong} placeholder="none; or high=fast.safetensors:0.8" />
      <label class="field"><span>Weight format</span>
        <select name="weight_format" value=${form.weight_format} onChange=${(/** @type {any} */ event) => set({ weight_format: event.target.value })}>
          ${Object.entries(FORMATS).map(([key, words]) => html`<option key=${key} value=${key}>${words}</option>`)}
        </select></label>
    </div>
  </details>`;

/** Names in messages of the API, where they are shorter than the field. */
const SAID_AS = { window_frames: "window", overlap_frames: "overlap", num_inference_steps: "steps", guidance_scale: "guidance" };

const Text = ({ label, name, form, set, wrong, ...rest }) => {
  const id = useId();
  const invalid = wrong === name || wrong === SAID_AS[name];
  return html`<div class="field"><label for=${id}>${label}</label>
    <input id=${id} name=${name} value=${form[name]} aria-invalid=${invalid || undefined} autocomplete="off" ...${rest}
      onInput=${(/** @type {any} */ event) => set({ [name]: event.target.value })} /></div>`;
};
const Number_ = (/** @type {any} */ props) => html`<${Text} type="number" inputmode="decimal" step="1" ...${props} />`;

/** What becomes of a picture that has another shape than the frames. */
const Fit = ({ value, onChange }) => html`<fieldset class="choices" data-testid="choices-fit"><legend class="legend">A picture of another shape</legend>
    <div class="chips">${Object.entries(FITS).map(([key, [name]]) => html`<label key=${key}>
      <input type="radio" name="fit" value=${key} checked=${value === key} onChange=${() => onChange(key)} />${name}</label>`)}</div>
    <p class="small-text quiet">${FITS[value][1]}</p>
  </fieldset>`;

/** One of several values. What no worker can run is greyed, and said why below. */
const Choices = ({ title, name, value, auto, unit, choices, onChange, hints = {} }) => {
  const id = useId();
  /** @type {Choice[]} */
  const options = [{ key: "", need_bytes: null, runnable: true, reason: null }, ...(choices ?? [])];
  const refused = options.filter(({ runnable }) => !runnable);
  const nameOf = (/** @type {string} */ key) => (key === "" ? auto : unit ? `${key} ${unit}` : name === "size" ? key.replace("x", " × ") : words(key));
  return html`<fieldset class="choices" data-testid=${`choices-${name}`}><legend class="legend">${title}</legend>
    <div class="chips">${options.map(({ key, runnable, need_bytes }) => html`<label key=${key} class=${runnable ? "" : "refused"}>
      <input type="radio" name=${name} value=${key} checked=${String(value) === key} disabled=${!runnable} onChange=${() => onChange(key)}
        aria-describedby=${runnable ? undefined : `${id}-${key}`} />
      ${nameOf(key)}${runnable && need_bytes != null && html` <small title="What a worker must hold">${bytes(need_bytes)}</small>`}</label>`)}</div>
    ${hints[value || "auto"] && value && html`<p class="small-text quiet">${hints[value]}.</p>`}
    ${refused.length > 0 && html`<ul class="reasons">${refused.map(({ key, reason }) => html`<li key=${key} id=${`${id}-${key}`}><strong>${nameOf(key)}</strong> ${(reason ?? "").replace(`mode ${key} `, "")}</li>`)}</ul>`}
  </fieldset>`;
};
