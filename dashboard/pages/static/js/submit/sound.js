// The sound of a new video: chosen or dropped, sent at once, named by the request. And what any single file does.
import { get, remove, upload } from "../api.js";
import { html, useCallback, useEffect, useRef, useState } from "../html.js";
import { duration } from "../format.js";
import { FileButton, FileRow } from "./beside.js";
import { kept } from "./form.js";

/** @typedef {import("./form.js").Input} Input */

/**
 * The file that was chosen, if one was, and what to do with another.
 * @param {"audio" | "mask"} name
 * @returns {[Input | null, (file: File) => void, () => void]}
 */
export function useFile(name) {
  const [file, setFile] = useState(() => kept()[name]);
  const sending = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => {
    // The farm keeps an upload for a day.
    if (file?.upload) get(`/uploads/${file.upload.id}`).catch((error) => error.status === 404 && setFile(null));
  }, []);
  const choose = useCallback((/** @type {File} */ chosen) => {
    sending.current?.abort();
    const abort = new AbortController();
    sending.current = abort;
    const patch = (/** @type {Partial<Input>} */ change) =>
      sending.current === abort && setFile((/** @type {Input | null} */ before) => before && { ...before, ...change });
    setFile({ key: 0, name: chosen.name, prompt: "", progress: 0, upload: null, error: null });
    upload(chosen, (progress) => patch({ progress }), abort.signal)
      .then((there) => patch({ upload: there, progress: 1 }), (error) => patch({ error }));
  }, []);
  const drop = () => {
    sending.current?.abort();
    sending.current = null;
    if (file?.upload) remove(`/uploads/${file.upload.id}`).catch(() => {}); // else it goes by itself in a day
    setFile(null);
  };
  return [file, choose, drop];
}

/** @param {{sound: Input | null, onFile: (file: File) => void, onRemove: () => void, first: Input["upload"] | undefined}} props */
export const Sound = ({ sound, onFile, onRemove, first }) => html`<div class="sound" data-testid="sound"><span class="legend">Sound</span>
  ${sound ? html`<${FileRow} input=${sound} said=${sound.upload ? describe(sound.upload) : ""} onRemove=${onRemove} />`
    : html`<span class="quiet small-text">${first?.sound ? "The video keeps its own." : "None: the video is silent."}</span>`}
  <${FileButton} label="Choose a sound" words=${sound || first?.sound ? "Choose another" : "Add a sound"} accept="audio/*,video/*"
    onFiles=${(/** @type {File[]} */ files) => onFile(files[0])} />
</div>`;

function describe(/** @type {NonNullable<Input["upload"]>} */ upload) {
  return upload.sound ? `${upload.sound.codec}, ${duration(upload.sound.end_s)}` : "It has no sound.";
}
