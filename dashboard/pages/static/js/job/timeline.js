// Which worker did what when: one row a worker, one bar an attempt, drawn on a canvas however many there are.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { duration, plural, words } from "../format.js";
import { Card } from "../parts.js";
import { palette, prepared, useWidth } from "../paint.js";

const ROW = 18;
const AXIS = 20;
const MAX_HEIGHT = 440;
const ZOOMS = [1, 2, 4, 8, 16, 32];
const WITHDRAWN = new Set(["cancelled", "coordinator_restart"]);

/** @typedef {import("./model.js").JobModel} JobModel */

/** @param {{job: any, model: JobModel, version: number, now: number, onPick: (segment: number) => void}} props */
export const Timeline = ({ job, model, version, now, onPick }) => {
  const [zoom, setZoom] = useState(1);
  const [view, setView] = useState({ left: 0, top: 0 });
  const [hovered, setHovered] = useState(-1);
  const [ref, width, theme] = useWidth();
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const rows = useRows(model, version);
  const gutter = width < 500 ? 74 : 136;
  const height = Math.min(AXIS + rows.length * ROW + 4, MAX_HEIGHT);
  const { from, until } = useSpan(model, version, job, now);
  const wide = Math.max((width - gutter) * zoom, 1);
  const at = (/** @type {number} */ time) => gutter + ((time - from) / (until - from)) * wide - view.left;

  useLayoutEffect(() => {
    if (!canvas.current || !width) return;
    const context = prepared(canvas.current, width, height);
    drawAxis(context, { from, until, at, width, height, gutter });
    context.save();
    context.beginPath();
    context.rect(0, AXIS, width, height);
    context.clip();
    rows.forEach((row, r) => {
      const y = AXIS + r * ROW - view.top;
      if (y < -ROW || y > height) return;
      drawRow(context, { model, row, y, at, now, width, gutter, hovered });
    });
    context.restore();
  }, [width, height, theme, version, now, zoom, view, hovered, rows]);

  const hit = (/** @type {MouseEvent} */ event) => {
    const row = rows[Math.floor((event.offsetY - AXIS + view.top) / ROW)];
    if (!row || event.offsetY < AXIS) return -1;
    const near = row.attempts.filter((a) => at(model.attempts.started_at[a]) - 3 <= event.offsetX
      && event.offsetX <= at(model.attempts.ended_at[a] ?? now) + 3);
    return near.at(-1) ?? -1;
  };
  const busy = rows.filter((row) => row.attempts.length).length;
  const label = `${plural(model.attempts.id.length, "attempt")} on ${plural(busy, "worker")} in ${duration(until - from)}. The table of segments below says the same.`;
  return html`<${Card} title="Timeline" className="timeline-card" actions=${html`<div class="row" role="group" aria-label="Zoom">
      <button type="button" class="button small" disabled=${zoom === ZOOMS[0]} onClick=${() => setZoom(zoom / 2)} aria-label="Zoom out">−</button>
      <span class="quiet small-text figure">${zoom} ×</span>
      <button type="button" class="button small" disabled=${zoom === ZOOMS.at(-1)} onClick=${() => setZoom(zoom * 2)} aria-label="Zoom in">+</button></div>`}>
    <div ref=${ref} class="timeline" style=${{ height: `${height}px` }} tabindex="0" role="group" aria-label="Timeline, scrolls" data-testid="timeline"
      onScroll=${(/** @type {any} */ event) => setView({ left: event.currentTarget.scrollLeft, top: event.currentTarget.scrollTop })}>
      <div style=${{ width: `${gutter + wide}px`, height: `${AXIS + rows.length * ROW}px` }}>
        <canvas ref=${canvas} role="img" aria-label=${label} onMouseLeave=${() => setHovered(-1)}
          onMouseMove=${(/** @type {MouseEvent} */ event) => setHovered(hit(event))}
          onClick=${(/** @type {MouseEvent} */ event) => { const a = hit(event); if (a >= 0) onPick(model.attempts.segment[a]); }}></canvas>
      </div>
    </div>
    <p class="legend-line" aria-hidden="true"><span class="key good">rendered</span><span class="key run">running</span><span class="key bad">failed</span><span class="key off">taken back</span>
      <span class="tip-line">${hovered >= 0 ? describe(model, hovered, now) : ""}</span></p>
  </${Card}>`;
};

/** Attempts of each worker. Most workers are here before the first event, so rows do not jump. */
function useRows(/** @type {JobModel} */ model, /** @type {number} */ version) {
  return useMemo(() => {
    const rows = model.workers.map((id) => ({ id, attempts: /** @type {number[]} */ ([]) }));
    model.attempts.worker.forEach((worker, a) => rows[worker]?.attempts.push(a));
    return rows.sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
  }, [model, version]);
}

/** From the first attempt's beginning to the last one's end, or now. */
function useSpan(/** @type {JobModel} */ { attempts }, /** @type {number} */ version, /** @type {any} */ job, /** @type {number} */ now) {
  return useMemo(() => {
    let [from, until] = [Infinity, 0];
    for (const began of attempts.started_at) from = Math.min(from, began);
    for (const end of attempts.ended_at) until = Math.max(until, end ?? now);
    if (from === Infinity) from = job.submitted_at;
    return { from, until: Math.max(until, from + 1) };
  }, [attempts, version, now]);
}

function drawAxis(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ { from, until, at, width, height, gutter }) {
  const colour = palette();
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const perSecond = at(from + 1) - at(from);
  const step = steps.find((s) => s * perSecond > 76) ?? 172800;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (let t = 0; from + t <= until; t += step) {
    const x = at(from + t);
    if (x < gutter - 1 || x > width) continue;
    context.fillStyle = colour.line;
    context.fillRect(Math.round(x), AXIS - 4, 1, height);
    context.fillStyle = colour.quiet;
    context.fillText(t === 0 ? "0" : axisTime(t), Math.min(x + 3, width - 40), AXIS / 2);
  }
}

function axisTime(/** @type {number} */ t) {
  if (t < 60) return `${t} s`;
  if (t < 3600) return t % 60 ? `${Math.floor(t / 60)}:${String(t % 60).padStart(2, "0")}` : `${t / 60} min`;
  return `${+(t / 3600).toFixed(1)} h`;
}

function drawRow(/** @type {CanvasRenderingContext2D} */ context, /** @type {any} */ { model, row, y, at, now, width, gutter, hovered }) {
  const colour = palette();
  const { attempts, segments } = model;
  context.fillStyle = colour.sunken;
  context.fillRect(gutter, y + 2, width - gutter, ROW - 4);
  for (const a of row.attempts) {
    const outcome = attempts.outcome[a];
    const left = Math.max(at(attempts.started_at[a]), gutter);
    const right = Math.min(at(attempts.ended_at[a] ?? now), width);
    if (right < gutter || left > width) continue;
    const wide = Math.max(right - left - (right - left > 4 ? 1 : 0), 1.5);
    context.fillStyle = outcome === "running" ? colour.run : outcome === "succeeded" ? colour.good : WITHDRAWN.has(outcome) ? colour["line-strong"] : colour.bad;
    context.globalAlpha = outcome === "succeeded" && segments.level[attempts.segment[a]] !== "final" ? 0.5 : a === hovered ? 1 : 0.82;
    context.fillRect(left, y + 2, wide, ROW - 4);
    context.globalAlpha = 1;
    if (a === hovered) {
      context.strokeStyle = colour.text;
      context.strokeRect(left + 0.5, y + 1.5, wide, ROW - 3);
    }
    const id = segments.id[attempts.segment[a]];
    if (wide > id.length * 6.2 + 8) {
      context.fillStyle = colour.surface;
      context.font = "10.5px system-ui, sans-serif";
      context.fillText(id, left + 5, y + ROW / 2 + 0.5);
    }
  }
  context.fillStyle = colour.surface;
  context.fillRect(0, y, gutter, ROW);
  context.fillStyle = row.attempts.length ? colour.text : colour.quiet;
  context.font = "11.5px system-ui, sans-serif";
  let name = row.id;
  while (name.length > 4 && context.measureText(name).width > gutter - 10) name = `…${name.slice(2)}`;
  context.fillText(name, 0, y + ROW / 2 + 0.5);
}

function describe(/** @type {JobModel} */ { attempts, segments, workers }, /** @type {number} */ a, /** @type {number} */ now) {
  const i = attempts.segment[a];
  const took = duration((attempts.ended_at[a] ?? now) - attempts.started_at[a]);
  return `${segments.id[i]}, frames ${segments.start[i]}–${segments.end[i] - 1}, ${workers[attempts.worker[a]]}: ${words(attempts.outcome[a])}, ${took}`;
}

/** The time, every so often while something runs. */
export function useNow(/** @type {boolean} */ running) {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}
