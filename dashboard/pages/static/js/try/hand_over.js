// From here to the farm: photo, prompt and seed are put into the form of a new video.
import { upload } from "../api.js";
import { EMPTY, keep } from "../submit/form.js";

export async function handOver(/** @type {File} */ photo, /** @type {string} */ prompt, /** @type {string} */ seed) {
  const there = await upload(photo, () => {}, new AbortController().signal);
  const input = { key: Date.now(), name: photo.name, prompt: "", progress: 1, upload: there, error: null };
  keep({ ...EMPTY, prompt, seed }, [input], { audio: null, mask: null, references: [] });
  location.assign("/");
}
