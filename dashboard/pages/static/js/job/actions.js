// What can be done to a job: stop it, go on, render a part again, delete it.
import { post, remove } from "../api.js";
import { html, useState } from "../html.js";
import { Icon } from "../icons.js";
import { duration, plural } from "../format.js";
import { Button, Confirm, Dialog, ErrorNote } from "../parts.js";

/** @param {{job: any, onRender: () => void}} props */
export const JobActions = ({ job, onRender }) => {
  const [asking, setAsking] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  const close = () => setAsking("");
  const retry = () => post(`/jobs/${job.id}/retry`).then(() => setError(null), setError);
  const running = job.status === "running";
  const waits = running && job.can_retry && job.segments.done < job.segments.total;
  const retried = waits || job.status === "failed" || job.status === "cancelled";
  return html`
    ${running && html`<button type="button" class="button danger" data-testid="cancel" onClick=${() => setAsking("cancel")}>Cancel</button>`}
    ${retried && html`<${Button} kind="primary" onPress=${retry} testid="retry"><${Icon} name="retry" />Retry</${Button}>`}
    <button type="button" class="button" data-testid="rerender" disabled=${job.segments.done === 0} onClick=${onRender}><${Icon} name="film" />Render again…</button>
    ${!running && html`<button type="button" class="button danger" data-testid="delete" onClick=${() => setAsking("delete")}><${Icon} name="remove" />Delete</button>`}
    <${ErrorNote} error=${error} />
    ${asking === "cancel" && html`<${Confirm} title="Cancel this job?" action="Cancel the job" onClose=${close} onConfirm=${() => post(`/jobs/${job.id}/cancel`)}>
      <p>What runs is stopped. The ${plural(job.segments.done, "segment")} rendered so far ${job.segments.done === 1 ? "is" : "are"} kept, and a retry goes on from there.</p></${Confirm}>`}
    ${asking === "delete" && html`<${Confirm} title="Delete this job?" action="Delete for good" onClose=${close}
        onConfirm=${() => remove(`/jobs/${job.id}`).then(() => location.assign("/jobs"))}>
      <p>Its video, segments, logs and report are removed from the farm's disk. This cannot be taken back.</p></${Confirm}>`}`;
};

/** @param {{job: any, range: {start: number, end: number}, onClose: () => void}} props range: frames, half-open as in the API */
export const RenderAgain = ({ job, range, onClose }) => {
  const [start, setStart] = useState(String(range.start));
  const [last, setLast] = useState(String(range.end - 1));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [answer, setAnswer] = useState(/** @type {any} */ (null));
  const [from, to] = [Number(start), Number(last)];
  const sound = start !== "" && last !== "" && Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to && to < job.rendered_frames;
  const render = async () => {
    try {
      setAnswer(await post(`/jobs/${job.id}/rerender`, { start: from, end: to + 1 }));
      setError(null);
    } catch (problem) {
      setError(problem);
    }
  };
  const field = (/** @type {string} */ name, /** @type {string} */ value, /** @type {(v: string) => void} */ set) => html`<label class="field"><span>${name}</span>
    <input type="number" autofocus=${name === "First frame"} min="0" max=${job.rendered_frames - 1} step="1" value=${value} aria-invalid=${!sound || undefined} onInput=${(/** @type {any} */ event) => set(event.target.value)} /></label>`;
  if (answer) {
    return html`<${Dialog} title="Rendering again" onClose=${onClose}>
      <p role="status">${plural(answer.segments.length, "segment")} will be rendered again: ${listed(answer.segments)}. The video plays as it was until the new one replaces it.</p>
      <div class="row end"><button type="button" class="button primary" onClick=${onClose}>Good</button></div></${Dialog}>`;
  }
  return html`<${Dialog} title="Render frames again" onClose=${onClose}>
    <p class="quiet">Every finished segment that shows one of these frames is rendered with other noise, and so is what starts from it. ${job.rendered_frames === job.num_frames ? "The video has" : "Rendered are"} frames 0 to ${job.rendered_frames - 1}.</p>
    <div class="field-grid">${field("First frame", start, setStart)}${field("Last frame", last, setLast)}</div>
    ${sound && html`<p class="small-text quiet">${plural(to - from + 1, "frame")}, from ${duration(from / job.rendered_fps)} to ${duration((to + 1) / job.rendered_fps)}.</p>`}
    <${ErrorNote} error=${error} />
    <div class="row end"><button type="button" class="button" onClick=${onClose}>Keep as it is</button>
      <${Button} kind="primary" disabled=${!sound} onPress=${render} testid="confirm-rerender">Render again</${Button}></div>
  </${Dialog}>`;
};

function listed(/** @type {string[]} */ ids) {
  return ids.length > 8 ? `${ids.slice(0, 8).join(", ")} and ${ids.length - 8} more` : ids.join(", ");
}
