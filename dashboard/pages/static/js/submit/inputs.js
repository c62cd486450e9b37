// Where pictures and videos come in: dropped, chosen, pasted.
import { address, get } from "../api.js";
import { html, useEffect, useId, useState } from "../html.js";
import { Icon } from "../icons.js";
import { fps, plural, share } from "../format.js";
import { Bar } from "../parts.js";
import { filesOf } from "./form.js";

/** @typedef {import("./form.js").Input} Input */

/** @param {{inputs: Input[], onFiles: (files: File[]) => void, onChange: (inputs: Input[]) => void, onePrompt: boolean, between: boolean}} props between: prompts stand between pictures */
export const Inputs = ({ inputs, onFiles, onChange, onePrompt, between }) => {
  const dragged = useDrop(onFiles);
  const isVideo = inputs[0]?.upload?.kind === "video";
  const move = (/** @type {number} */ from, /** @type {number} */ to) => {
    const moved = [...inputs];
    moved.splice(to, 0, ...moved.splice(from, 1));
    onChange(moved);
  };
  return html`
    ${inputs.length > 0 && html`<ol class="inputs" data-testid="inputs">
      ${inputs.map((input, i) => html`<${InputRow} key=${input.key} input=${input} number=${i + 1} count=${inputs.length}
        ownPrompt=${!onePrompt && inputs.length > 1 && !(between && i === inputs.length - 1)} between=${between}
        onPrompt=${(/** @type {string} */ prompt) => onChange(inputs.map((other) => (other === input ? { ...other, prompt } : other)))}
        onRemove=${() => onChange(inputs.filter((other) => other !== input))}
        onMove=${(/** @type {number} */ by) => move(i, i + by)} />`)}
    </ol>`}
    ${!isVideo && html`<${DropTile} small=${inputs.length > 0} dragged=${dragged} onFiles=${onFiles} />`}`;
};

/** Anywhere on the page is good for a drop or a paste. @param {(files: File[]) => void} onFiles */
function useDrop(onFiles) {
  const [dragged, setDragged] = useState(false);
  useEffect(() => {
    let leaving = 0;
    const over = (/** @type {DragEvent} */ event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      clearTimeout(leaving);
      setDragged(true);
    };
    const leave = () => {
      leaving = window.setTimeout(() => setDragged(false), 80);
    };
    const drop = (/** @type {DragEvent} */ event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setDragged(false);
      onFiles(filesOf(event.dataTransfer));
    };
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const files = filesOf(event.clipboardData);
      if (files.length) {
        event.preventDefault();
        onFiles(files);
      }
    };
    const listeners = /** @type {const} */ ([["dragover", over], ["dragleave", leave], ["drop", drop], ["paste", paste]]);
    for (const [name, listener] of listeners) document.addEventListener(name, /** @type {any} */ (listener));
    return () => {
      for (const [name, listener] of listeners) document.removeEventListener(name, /** @type {any} */ (listener));
    };
  }, [onFiles]);
  return dragged;
}

const DropTile = ({ small, dragged, onFiles }) => {
  const choose = (/** @type {any} */ event) => {
    onFiles([...event.target.files]);
    event.target.value = "";
  };
  return html`<label class=${`drop ${small ? "small" : ""} ${dragged ? "dragged" : ""}`} data-testid="drop">
    <input type="file" class="visually-hidden" accept="image/*,.heic,.heif,.avif,.tif,.tiff,video/*" multiple onChange=${choose}
      aria-label=${small ? "Add pictures" : "Choose pictures or a video"} />
    <${Icon} name=${small ? "add" : "picture"} />
    ${small ? html`<span>Add a picture</span>`
      : html`<span class="drop-title">Drop a picture here, or <u>choose a file</u></span>
        <span class="quiet">Several pictures make a storyboard; a video is restyled. Pasting works too.</span>`}
  </label>`;
};

const InputRow = ({ input, number, count, ownPrompt, between, onPrompt, onRemove, onMove }) => {
  const id = useId();
  const { upload, error } = input;
  const checked = useCheck(input);
  return html`<li class="input-row">
    <span class="thumb">${upload ? html`<img src=${address(`/uploads/${upload.id}/picture`)} alt="" />` : html`<${Icon} name="picture" />`}</span>
    <div class="input-text">
      <p class="input-name" title=${input.name}>${input.name}</p>
      ${error ? html`<p class="field-error" role="alert">${error.message}</p>`
        : upload ? html`<p class="quiet small-text">${describe(upload)}</p>
          ${(upload.notes ?? []).map((note) => html`<p key=${note} class="quiet small-text">${note}</p>`)}`
        : html`<${Bar} value=${checked?.share ?? input.progress} label=${`Upload of ${input.name}`} />
          <p class="quiet small-text">${input.progress < 1 ? `${share(input.progress)} sent` : checking(checked)}</p>`}
      ${ownPrompt && html`<div class="field"><label class="visually-hidden" for=${id}>${between ? `Prompt between pictures ${number} and ${number + 1}` : `Prompt of picture ${number}`}</label>
        <textarea id=${id} rows="2" placeholder=${between ? "What happens until the next picture" : "What happens from this picture on"} value=${input.prompt}
          onInput=${(/** @type {any} */ event) => onPrompt(event.target.value)}></textarea></div>`}
    </div>
    <div class="input-tools">
      ${count > 1 && html`<button type="button" class="button small plain" disabled=${number === 1} aria-label=${`Move picture ${number} up`} onClick=${() => onMove(-1)}><${Icon} name="up" /></button>
      <button type="button" class="button small plain" disabled=${number === count} aria-label=${`Move picture ${number} down`} onClick=${() => onMove(1)}><${Icon} name="down" /></button>`}
      <button type="button" class="button small plain" aria-label=${`Remove ${input.name}`} onClick=${onRemove}><${Icon} name="remove" /></button>
    </div>
  </li>`;
};

/**
 * How far the farm's look at a file is, asked every second while it lasts.
 * @param {Input} input
 * @returns {{num_frames: number, share: number | null} | null}
 */
function useCheck({ name, progress, upload, error }) {
  const [check, setCheck] = useState(/** @type {any} */ (null));
  const waits = progress >= 1 && !upload && !error;
  useEffect(() => {
    if (!waits) return undefined;
    const timer = setInterval(() => get("/uploads")
      .then(({ data }) => setCheck(data.find((/** @type {any} */ one) => one.name === name) ?? null), () => {}), 1000);
    return () => clearInterval(timer);
  }, [waits, name]);
  return waits ? check : null;
}

function checking(/** @type {{num_frames: number, share: number | null} | null} */ check) {
  if (!check?.num_frames) return "The farm is checking it…";
  const part = check.share === null ? "" : `, ${share(check.share)}`;
  return `The farm is looking at it: ${plural(check.num_frames, "frame")}${part}`;
}

function describe(/** @type {NonNullable<Input["upload"]>} */ upload) {
  const size = `${upload.width} × ${upload.height}`;
  return upload.kind === "video" ? `video, ${size}, ${plural(upload.num_frames, "frame")} at ${fps(upload.fps)}` : `picture, ${size}`;
}
