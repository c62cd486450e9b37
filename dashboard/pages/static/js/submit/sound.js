// The sound of a new video: chosen or dropped, sent at once, named by the request.
import { get, remove, upload } from "../api.js";
import { html, useCallback, useEffect, useRef, useState } from "../html.js";
import { Icon } from "../icons.js";
import { duration, share } from "../format.js";
import { Bar } from "../parts.js";
import { kept } from "./form.js";

/** @typedef {import("./form.js").Input} Input */

/**
 * The sound that was chosen, if one was, and what to do with another.
 * @returns {[Input | null, (file: File) => void, () => void]}
 */
export function useSound() {
  const [sound, setSound] = useState(() => kept().audio);
  const sending = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => {
    // The farm keeps an upload for a day.
    if (sound?.upload) get(`/uploads/${sound.upload.id}`).catch((error) => error.status === 404 && setSound(null));
  }, []);
  const choose = useCallback((/** @type {File} */ file) => {
    sending.current?.abort();
    const abort = new AbortController();
    sending.current = abort;
    const patch = (/** @type {Partial<Input>} */ change) =>
      sending.current === abort && setSound((/** @type {Input | null} */ before) => before && { ...before, ...change });
    setSound({ key: 0, name: file.name, prompt: "", progress: 0, upload: null, error: null });
    upload(file, (progress) => patch({ progress }), abort.signal)
      .then((there) => patch({ upload: there, progress: 1 }), (error) => patch({ error }));
  }, []);
  const drop = () => {
    sending.current?.abort();
    sending.current = null;
    if (sound?.upload) remove(`/uploads/${sound.upload.id}`).catch(() => {}); // else it goes by itself in a day
    setSound(null);
  };
  return [sound, choose, drop];
}

/** @param {{sound: Input | null, onFile: (file: File) => void, onRemove: () => void, first: Input["upload"] | undefined}} props */
export const Sound = ({ sound, onFile, onRemove, first }) => {
  const choose = (/** @type {any} */ event) => {
    if (event.target.files[0]) onFile(event.target.files[0]);
    event.target.value = "";
  };
  return html`<div class="sound" data-testid="sound"><span class="legend">Sound</span>
    ${sound ? html`<div class="input-row">
      <span class="input-text"><span class="input-name" title=${sound.name}>${sound.name}</span>
        ${sound.error ? html`<span class="field-error" role="alert">${sound.error.message}</span>`
          : sound.upload ? html`<span class="quiet small-text">${describe(sound.upload)}</span>`
          : html`<${Bar} value=${sound.progress} label=${`Upload of ${sound.name}`} />
            <span class="quiet small-text">${sound.progress < 1 ? `${share(sound.progress)} sent` : "The farm is checking it…"}</span>`}</span>
      <span class="input-tools"><button type="button" class="button small plain" aria-label=${`Remove ${sound.name}`} onClick=${onRemove}><${Icon} name="remove" /></button></span>
    </div>`
      : html`<span class="quiet small-text">${first?.sound ? "The video keeps its own." : "None: the video is silent."}</span>`}
    <label class="button small">
      <input type="file" class="visually-hidden" accept="audio/*,video/*" onChange=${choose} aria-label="Choose a sound" />
      ${sound || first?.sound ? "Choose another" : "Add a sound"}</label>
  </div>`;
};

function describe(/** @type {NonNullable<Input["upload"]>} */ upload) {
  return upload.sound ? `${upload.sound.codec}, ${duration(upload.sound.end_s)}` : "It has no sound.";
}
