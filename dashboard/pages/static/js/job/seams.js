// The joins between segments: a strip coloured by score, and one of them before and after.
import { address } from "../api.js";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { UNKNOWN, figure, plural, share, words } from "../format.js";
import { Badge, Card, Empty, Figure, Picture } from "../parts.js";
import { readSeams } from "./model.js";
import { Strip } from "../paint.js";

/** Figures of a join with the gate each must pass. */
const GATES = /** @type {{gate: string, field: string, title: string, limit: number, atLeast?: boolean, show: (value: any) => string, means: string}[]} */ ([
  { gate: "mae", field: "mae_ratio", title: "Change of the picture", limit: 1.5, show: times, means: "against the clips' own from frame to frame" },
  { gate: "warp_error", field: "warp_error_ratio", title: "Warp error", limit: 2, show: times, means: "what motion does not explain" },
  { gate: "flow_jerk", field: "flow_jerk_ratio", title: "Jerk of the motion", limit: 2, show: times, means: "how suddenly the motion changes" },
  { gate: "sharpness", field: "sharpness_ratio", title: "Sharpness", limit: 0.9, atLeast: true, show: times, means: "against the frames around it" },
  { gate: "lab_step", field: "lab_step", title: "Step in colour", limit: 1, show: (v) => figure(v), means: "CIE Lab units; 1 can just be seen" },
  { gate: "residual", field: "residual_fraction_of_width", title: "Left over", limit: 0.02, show: (v) => (v == null ? UNKNOWN : `${figure(v * 100, 2)} %`), means: "of the width, that the flow could not close" },
  { gate: "valid_fraction", field: "valid_fraction", title: "Agreement of the flow", limit: 0.6, atLeast: true, show: share, means: "pixels where forth and back agree" },
]);

/** What a segment between two given frames can do instead of moving from the one to the other. */
const FILL = [
  { gate: "fade", title: "Fades", means: "its frames are mixes of the two" },
  { gate: "keyframe_early", title: "Arrives early", means: "and holds the last of them" },
  { gate: "static_fill", title: "Hardly moves", means: "and jumps" },
  { gate: "colour_at_ends", title: "Colours step", means: "next to the frames that were given" },
];

/** A join is written to the file a few seams after it was accepted: its picture is not asked for before. */
const LATE = 4;

/** Whether the picture of a join, the n-th of so many, can be there. */
export const isJoined = (/** @type {any} */ job, /** @type {number} */ n, /** @type {number} */ count) =>
  job.finished_at !== null || count - n > LATE;

function times(/** @type {number | null} */ value) {
  return value == null ? UNKNOWN : `${figure(value)} ×`;
}

/** How close the worst figure of a join is to its gate: 0 is perfect, 1 at it, more beyond. Null: nothing was measured. */
export function scoreOf(/** @type {Record<string, any>} */ report) {
  const shares = GATES.flatMap(({ field, limit, atLeast }) => {
    const value = report[field];
    if (typeof value !== "number") return [];
    // What must be at least so much is best at 1.
    return [atLeast ? (1 - value) / (1 - limit) : value / limit];
  });
  return shares.length ? Math.max(...shares) : null;
}

/** How a seam is seen: from good to close to its gate by degrees, and beyond it. */
function look(/** @type {import("./model.js").SeamRow} */ seam) {
  if (!seam.passed) return { colour: "bad", urgency: 3, word: "beyond a gate" };
  if (seam.report.kind === "cut") return { colour: "line-strong", urgency: 1, word: "cut" };
  const score = scoreOf(seam.report) ?? 0;
  const percent = Math.round(Math.min(Math.max(score - 0.6, 0) / 0.4, 1) * 10) * 10;
  return { colour: "good", blend: { colour: "near", percent }, urgency: percent / 50, word: score > 0.85 ? "near a gate" : "passed" };
}

/** @param {{job: any, model: import("./model.js").JobModel, version: number, onPick: (segment: number) => void}} props */
export const Seams = (props) => {
  const [ref, ready, page] = useSeams(props.model);
  return html`<div ref=${ref} class="lazy"><${SeamCard} ...${props} ready=${ready} page=${page} /></div>`;
};

/** Reads the seams when their card comes near the screen: of a long video they are many. */
function useSeams(/** @type {import("./model.js").JobModel} */ model) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [near, setNear] = useState(false);
  const [ready, setReady] = useState(false);
  const [page, setPage] = useState(0);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && setNear(true), { rootMargin: "300px" });
    if (ref.current) observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (near) readSeams(model, () => setPage((n) => n + 1)).then(() => setReady(true), () => setReady(true));
  }, [near, model]);
  return /** @type {const} */ ([ref, ready, page]);
}

const SeamCard = ({ job, model, version, onPick, ready, page }) => {
  const [chosen, setChosen] = useState(/** @type {string | null} */ (null));
  const seams = useMemo(() => [...model.seams.values()].sort((a, b) => a.start - b.start), [model, version, page]);
  const parts = useMemo(() => seams.map((seam, n) => ({ from: n, to: n + 1, ...look(seam) })), [seams]);
  const failed = seams.flatMap(({ passed }, n) => (passed ? [] : [n]));
  const n = Math.max(seams.findIndex((seam) => seam.before === chosen), 0);
  const seam = seams[n];
  if (!seam) return html`<${Card} title="Seams" id="seams"><${Empty} title=${!ready ? "Reading the seams…" : model.finals().length > 1 ? "No seam has been measured yet." : "One segment has no seams."} /></${Card}>`;
  const choose = (/** @type {number} */ to) => setChosen(seams[to].before);
  const nextFailed = failed.find((f) => f > n) ?? failed[0];
  const score = scoreOf(seam.report);
  const word = look(seam).word;
  return html`<${Card} title="Seams" id="seams" actions=${html`<span class="quiet small-text" data-testid="seam-count">${plural(seams.length, "seam")} measured, ${failed.length ? html`<span class="bad-text">${failed.length} beyond a gate</span>` : "all within their gates"}</span>`}>
    <${Strip} label=${`${seams.length} seams, ${failed.length} beyond a gate`} total=${seams.length} parts=${parts} version=${`${version}/${page}`} selected=${n}
      onPick=${choose} describe=${(/** @type {number} */ k) => `${seams[k].after} to ${seams[k].before}: ${look(seams[k]).word}`} />
    <p class="legend-line" aria-hidden="true"><span class="key scale">passed, to near a gate</span><span class="key bad">beyond a gate</span><span class="key off">cut</span></p>
    <div class="seam-choose">
      <label class="field"><span>Seam ${n + 1} of ${seams.length}</span>
        <input type="range" min="0" max=${seams.length - 1} value=${n} aria-valuetext=${`${seam.after} to ${seam.before}, ${word}`} data-testid="seam-slider"
          onInput=${(/** @type {any} */ event) => choose(Number(event.target.value))} /></label>
      ${failed.length > 0 && html`<button type="button" class="button small" onClick=${() => choose(nextFailed)}>Next beyond a gate</button>`}
    </div>
    <div class="seam-head row"><strong class="mono">${seam.after} → ${seam.before}</strong>
      <${Badge} status=${seam.passed ? (word === "near a gate" ? "warning" : "passed") : "failed"}>${word}</${Badge}>
      <span class="quiet">from frame ${seam.start}, ${plural(seam.overlap, "frame")} shared; score ${score === null ? UNKNOWN : figure(score)} (1 is the gate); ${words(seam.decision)}</span>
      <button type="button" class="button small push" onClick=${() => onPick(model.numberOf.get(seam.before) ?? 0)}>Look at ${seam.before}</button></div>
    <div class="seam-pictures">
      ${(seam.accepted_take === null ? ["before"] : ["before", "after"]).map((which) => html`<${SeamPicture} key=${which} which=${which} job=${job} seam=${seam}
        there=${which === "before" || isJoined(job, n, seams.length)} />`)}
    </div>
    <ul class="gates">${GATES.map(({ gate, field, title, limit, atLeast, show, means }) => {
      const value = seam.report[field];
      const bad = seam.failed_gates.includes(gate);
      return html`<li key=${gate} class=${bad ? "beyond" : ""}><span>${title}<small class="quiet">${means}</small></span>
        <span><${Figure} value=${value == null ? UNKNOWN : show(value)} /> <small class="quiet">${atLeast ? "at least" : "at most"} ${show(limit)}</small>${bad && html` <small class="bad-text">beyond</small>`}</span></li>`;
    })}
    <li class=${seam.failed_gates.includes("scene_cut") ? "beyond" : ""}><span>Scene cut<small class="quiet">the picture changes as at a cut</small></span><span>${seam.report.scene_cut == null ? UNKNOWN : seam.report.scene_cut ? "yes" : "no"}</span></li>
    ${seam.report.fill && FILL.map(({ gate, title, means }) => html`<li key=${gate} class=${seam.failed_gates.includes(gate) ? "beyond" : ""}><span>${title}<small class="quiet">${means}</small></span><span>${seam.failed_gates.includes(gate) ? "yes" : "no"}</span></li>`)}</ul>
  </${Card}>`;
};

const SeamPicture = ({ which, job, seam, there }) => {
  const missing = html`<p class="quiet">This picture is not there yet.</p>`;
  return html`<figure><figcaption>${which === "before" ? "Before: the segments put one after the other" : "After: as they are joined"}</figcaption>
    ${there ? html`<${Picture} key=${seam.before} src=${address(`/jobs/${job.id}/seams/${seam.before}/picture?which=${which}`)} version=${`${seam.accepted_take}/${job.finished_at}`}
      alt=${`Frames around the seam, ${which} joining`} missing=${missing} />` : missing}</figure>`;
};
