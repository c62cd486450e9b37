// What the farm would do with the form, asked again while it is filled in.
import { address, post } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Icon } from "../icons.js";
import { about, bytes, cost, duration, fps, plural, words } from "../format.js";
import { Bar, ErrorNote, Facts } from "../parts.js";

const DEBOUNCE_MS = 250;
const AGAIN_MS = 3000;
/** Workers that are named at once. */
const SHOWN = 6;

/**
 * The plan of a request. `stale`: it is that of the request before, and the new one is on its way.
 * @param {string | null} body JSON; null: nothing to plan yet
 * @param {number} fleet changes when the workers do
 * @returns {{answer: any, error: import("../api.js").ApiError | null, stale: boolean}}
 */
export function usePlan(body, fleet) {
  const [answer, setAnswer] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [answered, setAnswered] = useState(/** @type {string | null} */ (null));
  const [again, setAgain] = useState(0);
  useEffect(() => {
    if (body === null) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setAnswer(await post("/plans?brief=true", JSON.parse(body), { signal: abort.signal }));
        setError(null);
        setAnswered(body);
      } catch (problem) {
        if (abort.signal.aborted) return;
        setError(problem);
        setAnswered(body);
        // The farm restarts, or wants less of us: the form is as it was, so ask once more.
        if (problem.status === 0 || problem.status === 429 || problem.status >= 500) setTimeout(() => setAgain((n) => n + 1), AGAIN_MS);
      }
    }, DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [body, fleet, again]);
  return { answer: body === null || error ? null : answer, error: body === null ? null : error, stale: body !== answered };
}

/** @typedef {import("./form.js").Input} Input */

/** @param {{planned: ReturnType<typeof usePlan>, waiting: string, inputs: Input[]}} props waiting: why there is nothing to plan */
export const PlanPreview = ({ planned, waiting, inputs }) => {
  const { answer, error, stale } = planned;
  if (waiting) return html`<div class="plan-wait quiet"><${Icon} name="film" /><p>${waiting}</p></div>`;
  if (error) return html`<${ErrorNote} error=${error} />`;
  if (!answer) return html`<div class="plan-wait quiet"><p>Planning…</p></div>`;
  const { plan, quote, framings } = answer;
  const able = quote.workers.filter((/** @type {any} */ worker) => !worker.why_not);
  const refused = quote.workers.filter((/** @type {any} */ worker) => worker.why_not);
  const longest = Math.max(...able.map((/** @type {any} */ worker) => worker.busy_s ?? 0));
  return html`<div class=${stale ? "plan stale" : "plan"} data-testid="plan">
    <div role="status">
      <p class="plan-time" data-testid="plan-time">${quote.predicted_s == null ? html`<span class="unknown">time unknown</span>` : `about ${about(quote.predicted_s)}`}</p>
      <p class="quiet">${plural(quote.num_segments, "segment")} ${able.length ? `on ${plural(able.filter((/** @type {any} */ w) => w.segments > 0).length || able.length, "worker")}` : "and no worker that can take them"};
        ${" "}${words(quote.mode)}${quote.predicted_s != null && (quote.measured ? "; from measured speeds" : "; an estimate, not every speed has been measured yet")}</p>
    </div>
    <${Framings} framings=${framings} inputs=${inputs} plan=${plan} />
    <${Facts} rows=${[
      ["Video", `${duration(quote.duration_s)}, ${plural(quote.num_frames, "frame")}`],
      ["Picture", `${quote.width} × ${quote.height}, ${fps(quote.fps)}`],
      ...(plan.delivery ? [["Interpolated", `from ${plural(plan.num_frames, "rendered frame")}, ${fps(plan.fps)}`]] : []),
      ["Sound", plan.sound ? `${plan.sound.codec}${plan.sound.copied ? ", as it is" : ", encoded anew"}` : "none"],
      ["Cost", cost(quote.cost)],
      ["Energy", quote.energy_wh == null ? "unknown" : `${quote.energy_wh} Wh`],
      ["No farm is faster than", about(quote.critical_path_s)],
      ...(plan.beside_chain ? [["Beside a chain", besideChain(plan.beside_chain)]] : []),
      ...(plan.draft ? [["Draft", `${plan.draft.model}, ${plan.draft.width} × ${plan.draft.height}, ${plural(plan.draft.num_inference_steps, "step")}`]] : []),
      ["Window", `${plan.window_frames} frames, ${plan.overlap_frames} shared`],
      ["Steps", String(plan.num_inference_steps)],
    ]} />
    <${Needs} title="A segment needs" on=${plan.on} workers=${quote.workers} />
    ${plan.draft && html`<${Needs} title="A segment of the draft needs" on=${plan.draft.on} workers=${quote.workers} />`}
    <div><h3>Workers</h3>
      ${quote.workers.length === 0 && html`<p class="note warn">No worker is here. The job would wait for one.</p>`}
      <${Some} list=${able} of="worker" row=${(/** @type {any} */ worker) => html`<${Able} key=${worker.worker_id} worker=${worker} longest=${longest} />`} />
      ${refused.length > 0 && html`<h3 class="refused-head">Cannot take it</h3>
      <${Some} list=${refused} of="worker" row=${(/** @type {any} */ worker) => html`<li key=${worker.worker_id} class="refused">
        <span><strong>${worker.worker_id}</strong> ${worker.device_name}</span><small>${worker.why_not}</small></li>`} />`}
    </div>
    <${Notes} notes=${[...new Set([...plan.notes, ...quote.notes])]} />
  </div>`;
};

/** @typedef {[number, number, number, number]} Box left, top, width, height, as shares */

/** How the inputs lie in the frames, where they have another shape. */
const Framings = ({ framings, inputs, plan }) => {
  const framed = inputs.map((/** @type {Input} */ input, /** @type {number} */ i) => ({ input, framing: framings[i], number: i + 1 }))
    .filter(({ input, framing }) => input.upload && framing?.said);
  return framed.length > 0 && html`<div class="framings" data-testid="framings">${framed.slice(0, SHOWN).map(({ input, framing, number }) => html`
    <figure key=${input.key}><div class="frame" style=${{ aspectRatio: `${plan.width} / ${plan.height}` }}>
      <img src=${address(`/uploads/${input.upload.id}/picture`)} alt=${`${input.name} in the frame`} style=${lying(framing)} /></div>
      <figcaption>${inputs.length > 1 ? `Picture ${number}` : "It"} ${framing.said}.</figcaption></figure>`)}</div>`;
};

/** A picture's box in the frame, of which only what is seen lies where it has its place. @param {{seen: Box, place: Box}} framing */
function lying({ seen, place }) {
  const side = (/** @type {0 | 1} */ axis) => place[axis + 2] / seen[axis + 2];
  const start = (/** @type {0 | 1} */ axis) => place[axis] - seen[axis] * side(axis);
  const of = (/** @type {number} */ part) => `${part * 100}%`;
  return { left: of(start(0)), top: of(start(1)), width: of(side(0)), height: of(side(1)) };
}

/** The first of a list, and the rest behind a word. */
const Some = ({ list, of, row }) => html`<ul class="plan-workers">${list.slice(0, SHOWN).map(row)}</ul>
  ${list.length > SHOWN && html`<details><summary class="small-text">${plural(list.length - SHOWN, `more ${of}`)}</summary><ul class="plan-workers">${list.slice(SHOWN).map(row)}</ul></details>`}`;

/** What mode chain would take, as what this one takes of it. @param {{critical_path: number, work: number}} shares */
const besideChain = ({ critical_path, work }) => `${critical_path.toFixed(2)} of its longest path, ${work.toFixed(2)} of its work`;

const KINDS = { cuda: "On a card", cpu: "On a CPU" };

/** What a window takes, per kind of worker: from the least memory to the fastest. */
const Needs = ({ title, on, workers }) => {
  const kinds = Object.entries(on);
  const held = new Map(workers.map((/** @type {any} */ w) => [w.rung, w.need_bytes]));
  return html`<div><h3>${title}</h3><ul class="needs">
    ${kinds.map(([kind, footprint]) => {
      const rungs = Object.entries(/** @type {Record<string, number>} */ (footprint.need_bytes)).sort(([, a], [, b]) => a - b);
      return html`<li key=${kind}><span>${KINDS[kind] ?? kind}</span><span class="need-rungs">${rungs.map(([rung, need]) =>
        html`<span key=${rung} class=${held.get(rung) === need ? "used" : ""}>${bytes(need)} <small>${words(rung)}</small></span>`)}</span></li>`;
    })}</ul></div>`;
};

const Able = ({ worker, longest }) => html`<li>
  <span class="able"><strong>${worker.worker_id}</strong> <span class="quiet">${worker.device_name}</span></span>
  <span class="able-share"><${Bar} value=${longest > 0 && worker.busy_s != null ? worker.busy_s / longest : null} label=${`Share of ${worker.worker_id}`} />
    <small>${worker.segments == null ? "share unknown" : plural(worker.segments, "segment")}${worker.busy_s == null ? "" : `, ${about(worker.busy_s)}`}</small></span>
  ${worker.rung && html`<small class="quiet">${words(worker.rung)}, holds ${bytes(worker.need_bytes)}</small>`}
</li>`;

export const Notes = ({ notes }) => notes.length > 0 && html`<ul class="notes">${notes.map((/** @type {string} */ note) => html`<li key=${note}>${note}</li>`)}</ul>`;
