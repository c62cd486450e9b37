// Every segment in a table of pages, and one of them looked at closely.
import { address, get } from "../api.js";
import { html, useEffect, useMemo, useState } from "../html.js";
import { bytes, count, duration, momentExactly, plural, words } from "../format.js";
import { pictureOf } from "./player.js";
import { Badge, Bar, Card, Dialog, Empty, ErrorNote, Facts, Pager, Picture, Select } from "../parts.js";

const PAGE = 25;
const FILTERS = /** @type {[string, string][]} */ ([
  ["", "All"], ["running", "Running"], ["done", "Rendered"], ["ready", "Ready"], ["waiting", "Waiting"], ["failed", "With failures"],
]);

/** @typedef {import("./model.js").JobModel} JobModel */

/** @param {{job: any, model: JobModel, version: number, now: number, onPick: (segment: number) => void}} props */
export const SegmentTable = ({ job, model, version, now, onPick }) => {
  const [filter, setFilter] = useState("");
  const [search, setSearch] = useState("");
  const [page, setPage] = useState(0);
  const { segments } = model;
  const failures = useMemo(() => failuresOf(model), [model, version]);
  const found = useMemo(() => segments.id.map((_, i) => i).filter((i) =>
    (filter === "" || (filter === "failed" ? failures.has(i) : segments.status[i] === filter)) && matches(model, i, search)),
  [model, version, filter, search, failures]);
  const pages = Math.max(Math.ceil(found.length / PAGE), 1);
  const shown = found.slice(Math.min(page, pages - 1) * PAGE).slice(0, PAGE);
  return html`<${Card} title="Segments" actions=${html`
      <input type="search" class="search" aria-label="Find by id, frame or worker" placeholder="id, frame or worker" value=${search}
        onInput=${(/** @type {any} */ event) => { setSearch(event.target.value); setPage(0); }} />
      <${Select} label="Show" value=${filter} options=${FILTERS} onChange=${(/** @type {string} */ value) => { setFilter(value); setPage(0); }} />`}>
    ${found.length === 0 ? html`<${Empty} title="No segment is like that." />` : html`<div class="table-wrap"><table class="folding" data-testid="segments">
      <caption class="visually-hidden">Segments of ${job.id}</caption>
      <thead><tr><th scope="col">Segment</th><th scope="col">Status</th><th scope="col">Frames</th><th scope="col">Worker</th><th scope="col" class="number">Time</th><th scope="col" class="number">Take</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${shown.map((i) => html`<tr key=${segments.id[i]}>
        <th scope="row"><button type="button" class="linklike mono" onClick=${() => onPick(i)}>${segments.id[i]}</button>
          ${segments.level[i] !== "final" && html` <small class="quiet">${segments.level[i]}</small>`}</th>
        <td data-label="Status"><${Badge} status=${segments.status[i]} />${segments.status[i] === "running" && html`<${Bar} value=${segments.done_fraction[i]} label=${`Progress of ${segments.id[i]}`} />`}
          ${failures.has(i) && html` <small class="bad-text">${plural(failures.get(i) ?? 0, "failure")}</small>`}</td>
        <td data-label="Frames">${framesOf(segments, i)}${segments.head[i] > 0 && html` <small class="quiet">${segments.head[i]} shared</small>`}</td>
        <td data-label="Worker" class="quiet">${model.workers[segments.worker[i]] ?? "—"}</td>
        <td data-label="Time" class="number">${tookOf(model, i, now)}</td>
        <td data-label="Take" class="number">${segments.take[i] + 1}</td>
        <td class="end"><button type="button" class="button small" aria-label=${`Look at ${segments.id[i]}`} onClick=${() => onPick(i)}>Look</button></td>
      </tr>`)}</tbody></table></div>
    <${Pager} page=${Math.min(page, pages - 1)} pages=${pages} onPage=${setPage} label="Pages of segments" />`}
  </${Card}>`;
};

function failuresOf(/** @type {JobModel} */ { attempts }) {
  const fine = new Set(["running", "succeeded", "cancelled", "coordinator_restart"]);
  /** @type {Map<number, number>} */
  const found = new Map();
  attempts.outcome.forEach((outcome, a) => {
    if (!fine.has(outcome)) found.set(attempts.segment[a], (found.get(attempts.segment[a]) ?? 0) + 1);
  });
  return found;
}

function matches(/** @type {JobModel} */ { segments, workers }, /** @type {number} */ i, /** @type {string} */ search) {
  const text = search.trim().toLowerCase();
  if (!text) return true;
  if (/^\d+$/.test(text) && segments.start[i] <= Number(text) && Number(text) < segments.end[i]) return true;
  return segments.id[i].toLowerCase().includes(text) || (workers[segments.worker[i]] ?? "").toLowerCase().includes(text);
}

function tookOf(/** @type {JobModel} */ { segments }, /** @type {number} */ i, /** @type {number} */ now) {
  const [from, to] = [segments.assigned_at[i], segments.ended_at[i]];
  if (from === null || from === undefined) return "—";
  if (segments.status[i] === "running") return duration(Math.max(now - from, 0));
  return to == null ? "—" : duration(to - from);
}

/**
 * The frames that no neighbour shows as well, so that they alone are rendered again; all of them where there are none.
 * @param {import("./model.js").Segments} segments
 * @param {number} i
 * @returns {[number, number]} half-open
 */
const ownFrames = (segments, i) => {
  const next = segments.start.findIndex((start, n) => n > i && segments.level[n] === "final" && start > segments.start[i]);
  const start = segments.start[i] + segments.head[i];
  const end = next < 0 ? segments.end[i] : Math.min(segments.end[i], segments.start[next]);
  return start < end ? [start, end] : [segments.start[i], segments.end[i]];
};

const framesOf = (/** @type {any} */ segments, /** @type {number} */ i) =>
  segments.level[i] === "text" ? "none" : `${segments.start[i]}–${segments.end[i] - 1}`;

/** @param {{job: any, model: JobModel, segment: number, mayChange: boolean, onRender: (start: number, end: number) => void, onClose: () => void, onPick: (segment: number) => void}} props */
export const SegmentDialog = ({ job, model, segment: i, mayChange, onRender, onClose, onPick }) => {
  const { segments } = model;
  const id = segments.id[i];
  const [detail, setDetail] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [frame, setFrame] = useState(0);
  useEffect(() => {
    setDetail(null);
    setFrame(0);
  }, [id]);
  useEffect(() => {
    get(`/jobs/${job.id}/segments/${id}`).then(setDetail, setError);
  }, [id, segments.status[i], segments.take[i]]);
  const done = segments.status[i] === "done";
  const isText = segments.level[i] === "text";
  const last = segments.end[i] - segments.start[i] - 1;
  // What is not rendered yet is shown as it is tried now.
  const tried = detail && (detail.worker_id ? detail : detail.attempts.findLast((/** @type {any} */ attempt) => attempt.outcome === "running"));
  const base = `/jobs/${job.id}/segments/${id}`;
  return html`<${Dialog} title=${`Segment ${id}`} onClose=${onClose} wide>
    <div class="row"><${Badge} status=${segments.status[i]} /><span class="quiet">${isText ? "the encoded prompt" : `frames ${segments.start[i]} to ${segments.end[i] - 1}`}, shot ${segments.shot[i] + 1}, ${segments.level[i]}</span>
      <span class="row push"><button type="button" class="button small" disabled=${i === 0} onClick=${() => onPick(i - 1)}>Previous</button>
      <button type="button" class="button small" disabled=${i === segments.id.length - 1} onClick=${() => onPick(i + 1)}>Next</button></span></div>
    <${ErrorNote} error=${error} />
    <div class="segment-look">
      ${isText ? html`<p class="quiet">The prompt, encoded once for all who render it.</p>` : done ? html`<div class="stack"><${Picture} class="segment-picture" src=${pictureOf(job.id, id, segments.start[i] + frame)} version=${segments.take[i]} alt=${`Frame ${segments.start[i] + frame} of the video`} width=${job.width} height=${job.height} />
        ${last > 0 && html`<label class="field"><span>Frame ${segments.start[i] + frame}</span>
          <input type="range" min="0" max=${last} value=${frame} onInput=${(/** @type {any} */ event) => setFrame(Number(event.target.value))} /></label>`}</div>`
        : html`<p class="quiet">Its pictures are here when it is rendered.</p>`}
      ${detail && html`<${Facts} rows=${[
        ["Worker", tried?.worker_id ?? "none yet"],
        ["Time", duration(detail.wall_s)],
        ["Predicted", duration(detail.predicted_s)],
        ["Rung", tried?.rung ? words(tried.rung) : "unknown"],
        ["Needs", bytes(detail.need_bytes)],
        ["Held at most", bytes(detail.peak_bytes)],
        ["Frames rendered", count(detail.num_frames)],
        ["Shared before / after", `${detail.head} / ${detail.tail}`],
        ["Takes", count(detail.takes)],
        ...(detail.fill ? [["Between its given frames", fillWords(detail.fill)]] : []),
        ["Waits for", detail.depends_on.length ? detail.depends_on.join(", ") : "nothing"],
      ]} />`}
    </div>
    ${detail?.why && html`<p class="quiet">${detail.why}</p>`}
    ${detail && html`<${AttemptList} attempts=${detail.attempts} />`}
    <div class="row end">
      ${done && !isText && html`<a class="button small" href=${address(`${base}/video`)} download>Segment as video</a>`}
      <a class="button small" href=${address(`${base}/log`)} target="_blank" rel="noopener">Log</a>
      ${mayChange && done && segments.level[i] === "final" && html`<button type="button" class="button small primary" onClick=${() => onRender(...ownFrames(segments, i))}>Render again…</button>`}
    </div>
  </${Dialog}>`;
};

const AttemptList = ({ attempts }) => attempts.length > 0 && html`<div class="table-wrap"><table class="folding">
  <caption class="visually-hidden">Attempts</caption>
  <thead><tr><th scope="col">Began</th><th scope="col">Worker</th><th scope="col">Take</th><th scope="col" class="number">Time</th><th scope="col">Outcome</th></tr></thead>
  <tbody>${attempts.map((/** @type {any} */ attempt) => html`<tr key=${attempt.id}>
    <td data-label="Began">${momentExactly(attempt.started_at)}</td><td data-label="Worker">${attempt.worker_id} <small class="quiet">${words(attempt.rung)}</small></td>
    <td data-label="Take">${attempt.take + 1}</td>
    <td data-label="Time" class="number">${duration(attempt.wall_s ?? (attempt.ended_at == null ? null : attempt.ended_at - attempt.started_at))}</td>
    <td data-label="Outcome">${words(attempt.outcome)}${attempt.message && html`<br /><small class="quiet">${attempt.message}</small>`}</td></tr>`)}
  </tbody></table></div>`;

/** What went wrong on the way from one given frame to the other, if anything did. */
const fillWords = (/** @type {{failed_gates: string[]}} */ { failed_gates }) => failed_gates.map((gate) => words(gate)).join(", ") || "motion, in its own colours";
