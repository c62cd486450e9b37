// What this farm can run of the chosen model: its largest size, and every one that was tried.
import { get, query } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { UNKNOWN, bytes, duration, plural, words } from "../format.js";

/** @typedef {{worker_id: string, memory: "worker" | "machine", has_bytes: number, needs_bytes: number}} Lack */
/** @typedef {{width: number, height: number, window_frames: number, holder: {worker_id: string, rung: string, need_bytes: number, host_bytes: number} | null,
 *   num_workers: number, seconds_per_second: number | null, measured: boolean, lack: Lack | null, why_not: string | null}} Setting */

/**
 * @param {{model: string, fleet: number}} props fleet: changes when the workers do
 */
export const Runs = ({ model, fleet }) => {
  const [report, setReport] = useState(/** @type {any} */ (null));
  useEffect(() => {
    if (!model) return undefined;
    const abort = new AbortController();
    get(`/models/runnable${query({ model })}`, { signal: abort.signal }).then(({ data }) => setReport(data[0]), () => {});
    return () => abort.abort();
  }, [model, fleet]);
  if (report?.model !== model) return null;
  const { runnable, why_not, disk_bytes, here } = report;
  const fetched = `Its files are not here: the first job fetches about ${bytes(disk_bytes)}.`;
  const disk = disk_bytes ? here ? `Its files take ${bytes(disk_bytes)} of the disk.` : fetched : "";
  if (!runnable) return html`<div class="runs" data-testid="runs"><p class="small-text quiet">${why_not}</p></div>`;
  const { largest, next_larger, settings } = runnable;
  return html`<div class="runs small-text" data-testid="runs">
    <p>${largest ? html`Here it runs up to <strong>${sizeOf(largest)}</strong> in windows of ${plural(largest.window_frames, "frame")}: ${place(largest)}; ${pace(largest, " for a second of video")}.`
      : html`Nothing of it runs here.`} <span class="quiet">${disk}</span></p>
    ${next_larger && html`<p class="quiet">${sizeOf(next_larger)} in windows of ${next_larger.window_frames} does not run: ${whyNot(next_larger)}.</p>`}
    <details><summary>Every size that was tried</summary>
      <div class="table-wrap" tabindex="0" role="group" aria-label="Sizes that were tried">
        <table class="folding"><thead><tr><th scope="col">Size</th><th scope="col">Window</th><th scope="col">Where</th><th scope="col">For a second of video</th></tr></thead>
          <tbody>${settings.map((/** @type {Setting} */ setting) => html`<tr key=${`${setting.width}x${setting.height}x${setting.window_frames}`} class=${setting.holder ? "" : "quiet"}>
            <td data-label="Size">${sizeOf(setting)}</td><td data-label="Window">${setting.window_frames}</td>
            ${setting.holder ? html`<td data-label="Where">${place(setting)}</td><td data-label="For a second of video">${pace(setting)}</td>`
              : html`<td data-label="Why not" colspan="2">${whyNot(setting)}</td>`}</tr>`)}</tbody></table></div>
    </details>
  </div>`;
};

const sizeOf = (/** @type {Setting} */ setting) => `${setting.width} × ${setting.height}`;

const place = (/** @type {Setting} */ { holder, num_workers }) => holder && [
  `${words(holder.rung)} on ${holder.worker_id}${num_workers > 1 ? ` and ${num_workers - 1} more` : ""}`,
  `${bytes(holder.need_bytes)}${holder.host_bytes ? ` and ${bytes(holder.host_bytes)} of its machine's memory` : ""}`,
].join(", ");

const pace = (/** @type {Setting} */ { seconds_per_second, measured }, of = "") =>
  seconds_per_second == null ? `time ${UNKNOWN}` : `${duration(seconds_per_second)}${of}, ${measured ? "measured" : "predicted"}`;

const whyNot = (/** @type {Setting} */ { lack, why_not }) =>
  `${why_not ?? UNKNOWN}${lack ? `, ${bytes(lack.needs_bytes - lack.has_bytes)} more` : ""}`;
