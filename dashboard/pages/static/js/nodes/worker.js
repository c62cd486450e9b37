// One worker: a card, or a share of a CPU.
import { post } from "../api.js";
import { html, useState } from "../html.js";
import { bytes, celsius, duration, figure, share, watts, words } from "../format.js";
import { Badge, Bar, Button, ErrorNote, Facts } from "../parts.js";

/** @param {{worker: Record<string, any>, admin: boolean, now: number, reload: () => void}} props */
export const WorkerCard = ({ worker, admin, now, reload }) => {
  const [error, setError] = useState(/** @type {any} */ (null));
  const slot = worker.id.slice(worker.node.length + 1);
  const off = worker.status === "draining" || worker.status === "drained";
  const change = async () => {
    try {
      await post(`/nodes/${encodeURIComponent(worker.node)}/workers/${encodeURIComponent(slot)}/${off ? "enable" : "drain"}`);
      setError(null);
      reload();
    } catch (problem) {
      setError(problem);
    }
  };
  const speeds = Object.entries(worker.seconds_per_mpixel_step);
  const isCard = worker.kind === "cuda";
  return html`<article class="card worker" aria-label=${`Worker ${worker.id}`} data-testid="worker" data-status=${worker.status}>
    <header class="worker-head"><div><h3>${slot}</h3><p class="quiet small-text">${worker.device_name}</p></div><${Badge} status=${worker.status} /></header>
    <${Memory} worker=${worker} isCard=${isCard} />
    <div class="vitals"><${Facts} rows=${[
      ["Load", share(worker.load)],
      ["Heat", celsius(worker.temperature_c)],
      ["Power", watts(worker.power_w)],
    ]} /></div>
    <div class="worker-work">
      ${worker.tasks.map((/** @type {any} */ task) => html`<div key=${task.job_id + task.task_id} class="task">
        <span><a href=${`/jobs/${task.job_id}`} class="mono">${task.job_id}</a> <span class="mono">${task.task_id}</span></span>
        <span class="quiet small-text figure">${words(task.phase)}, ${words(task.rung)}, ${duration(Math.max(now - task.started_at, 0))}</span>
        <${Bar} value=${task.done_fraction} label=${`Progress of ${task.task_id}`} /></div>`)}
      ${worker.idle_because && html`<p class="quiet small-text">${worker.tasks.length ? "" : "Idle: "}${worker.idle_because}</p>`}
    </div>
    <div class="speeds-part"><h4>Speed</h4>${speeds.length === 0 ? html`<p class="quiet small-text">Not measured yet.</p>` : html`<ul class="speeds">${speeds.map(([model, seconds]) => html`<li key=${model}><span>${model}${model === worker.warm_model && html` <small class="quiet">loaded</small>`}</span>
        <span class="figure" title="seconds per million pixels, frame and step">${figure(seconds, seconds < 0.1 ? 4 : 2)} <small class="quiet">s / Mpx·step</small></span></li>`)}</ul>`}</div>
    <details class="worker-more"><summary class="small-text">Device</summary>
      <${Facts} rows=${[
        ["Loaded model", worker.warm_model ?? "none"],
        ["Models on its disk", onDisk(worker.models)],
        ...(isCard ? [["Compute capability", worker.compute_capability ?? "unknown"], ["Driver", worker.driver ?? "unknown"]] : []),
        ["Process memory", bytes(worker.memory_used_bytes)],
        ["Price of an hour", worker.price_per_hour == null ? "unknown" : figure(worker.price_per_hour)],
      ]} />
    </details>
    <${ErrorNote} error=${error} />
    ${admin && html`<footer class="row end"><${Button} kind="small" onPress=${change} label=${`${off ? "Enable" : "Drain"} ${worker.id}`} testid=${off ? "enable" : "drain"}>${off ? "Enable" : "Drain"}</${Button}></footer>`}
  </article>`;
};

/** Names and sizes, beside what comes with the farm. */
const onDisk = (/** @type {Record<string, number> | null} */ models) =>
  models === null ? "unknown" : Object.entries(models).map(([name, size]) => `${name} (${bytes(size)})`).join(", ") || "none but the farm's own";

/** Of a card its VRAM; of a CPU worker its process's memory against what it may hold. */
const Memory = ({ worker, isCard }) => {
  const used = isCard ? worker.vram_used_bytes : worker.memory_used_bytes;
  const total = isCard ? worker.vram_total_bytes ?? worker.vram_bytes : worker.vram_bytes;
  const part = used == null ? null : Math.min(used / total, 1);
  return html`<div class="memory"><div class="memory-line"><span>${isCard ? "VRAM" : "Memory"}</span>
      <span class="figure">${used == null ? html`<span class="unknown">unknown</span>` : bytes(used)} <span class="quiet">of ${bytes(total)}</span></span></div>
    <${Bar} value=${part} label=${`${isCard ? "VRAM" : "Memory"} of ${worker.id}`} />
    ${isCard && worker.vram_total_bytes != null && html`<p class="quiet small-text">tasks may hold ${bytes(worker.vram_bytes)}${worker.vram_others_bytes ? `, other programs hold ${bytes(worker.vram_others_bytes)}` : ""}</p>`}</div>`;
};
