// What is there to take home, and the report in figures.
import { address, get } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Icon } from "../icons.js";
import { bytes, cost, count, duration, fps, words } from "../format.js";
import { Button, Card, ErrorNote, Facts } from "../parts.js";
import { Notes } from "../submit/plan.js";

const ARTIFACT_WORDS = {
  "video.mp4": "Video", "sheet.png": "Contact sheet", "thumbnail.webp": "Thumbnail", "spritesheet.webp": "Sprite sheet",
  "report.json": "Report", "so-far.mp4": "Video so far",
};

/** @param {{job: any}} props */
export const Downloads = ({ job }) => {
  const [artifacts, setArtifacts] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    get(`/jobs/${job.id}/artifacts`).then(({ data }) => setArtifacts(data), () => {});
  }, [job.id, job.status, job.finished_at]);
  const ready = artifacts.filter(({ ready: there }) => there);
  return html`<${Card} title="Downloads">
    ${ready.length === 0 ? html`<p class="quiet">Nothing is finished yet.</p>` : html`<ul class="downloads" data-testid="downloads">${ready.map(({ name, href, size_bytes }) => html`<li key=${name}>
      <a href=${href} download=${`${job.id}-${name}`}><${Icon} name="download" />${ARTIFACT_WORDS[name] ?? name}</a><span class="quiet small-text">${size_bytes == null ? "" : bytes(size_bytes)}</span></li>`)}</ul>`}
  </${Card}>`;
};

/** The report, fetched when it is asked for: of a long video it is large. @param {{job: any}} props */
export const Report = ({ job }) => {
  const [report, setReport] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const load = () => get(`/jobs/${job.id}/report`).then((answer) => { setReport(answer); setError(null); }, setError);
  return html`<${Card} title="Report" actions=${html`<a class="button small" href=${address(`/jobs/${job.id}/report`)} target="_blank" rel="noopener">As JSON</a>
      <${Button} kind="small" onPress=${load} testid="load-report">${report ? "Read again" : "Show"}</${Button}>`}>
    <${ErrorNote} error=${error} />
    ${!report && !error && html`<p class="quiet">Settings, shots, workers and totals of this job.</p>`}
    ${report && html`<div class="stack">
      <${Facts} rows=${[
        ["From submit to end", duration(report.totals.wall_s)],
        ["No farm is faster than", duration(report.totals.critical_path_s)],
        ["Joining took", duration(report.totals.stitch_s)],
        ["Video", bytes(report.totals.size_bytes)],
        ["Cost", cost(report.cost ?? report.totals.cost)],
        ["Results refused", count(report.totals.refused_results)],
        ...settings(report.settings),
      ]} />
      <${Notes} notes=${report.notes} />
      <h3>Shots</h3>
      <ol class="shots">${report.shots.map((/** @type {any} */ shot) => html`<li key=${shot.index}><span class="quiet small-text">frames ${shot.start}–${shot.end - 1}, ${words(shot.mode)}</span> ${shot.prompt || html`<span class="quiet">without a prompt</span>`}</li>`)}</ol>
      <h3>Workers</h3>
      <div class="table-wrap"><table class="folding"><caption class="visually-hidden">What each worker did</caption>
        <thead><tr><th scope="col">Worker</th><th scope="col">Device</th><th scope="col" class="number">Segments</th><th scope="col" class="number">Busy</th><th scope="col" class="number">Failures</th></tr></thead>
        <tbody>${Object.entries(report.workers).map(([id, worker]) => html`<tr key=${id}><th scope="row">${id}</th><td data-label="Device">${worker.device_name ?? "unknown"}</td>
          <td data-label="Segments" class="number">${worker.segments}</td><td data-label="Busy" class="number">${duration(worker.busy_s)}</td><td data-label="Failures" class="number">${worker.failed_attempts}</td></tr>`)}</tbody></table></div>
    </div>`}
  </${Card}>`;
};

/** What the model ran from, where it was not its own files as they are. @returns {[string, string][]} */
function weights(/** @type {any} */ { files, loras, format }) {
  const name = (/** @type {any} */ file) => `${file.part ? `${file.part}: ` : ""}${file.path.split("/").pop()}`;
  const said = [...files.map(name), ...loras.map((/** @type {any} */ lora) => `LoRA ${name(lora)} × ${lora.scale}`), ...(format ? [format] : [])];
  return said.length ? [["Weights", said.join(", ")]] : [];
}

/** @returns {[string, string][]} */
function settings(/** @type {any} */ plan) {
  return [
    ["Picture", `${plan.width} × ${plan.height}, ${fps(plan.fps)}`],
    ...(plan.delivery ? [/** @type {[string, string]} */ (["Delivered", `${count(plan.delivery.num_frames)} frames, ${fps(plan.delivery.fps)}, interpolated`])] : []),
    ["Window", `${plan.window_frames} frames, ${plan.overlap_frames} shared`],
    ["Steps", count(plan.num_inference_steps)],
    ...(plan.draft ? [/** @type {[string, string]} */ (["Draft", `${plan.draft.model}, ${plan.draft.width} × ${plan.draft.height}, ${count(plan.draft.num_inference_steps)} steps`])] : []),
    ["Guidance", count(plan.guidance_scale)],
    ["Strength", plan.strength == null ? "the model's own" : count(plan.strength)],
    ["Seed", String(plan.seed)],
    ...weights(plan.weights),
  ];
}
