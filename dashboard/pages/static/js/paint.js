// Canvases: sharp on every screen, in the colours of the theme.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";

const NAMES = ["text", "quiet", "line", "line-strong", "bar", "surface", "sunken", "accent", "run", "good", "bad", "near"];

/** @type {Record<string, string> | null} */
let colours = null;

/** The theme's colours as a canvas takes them. @returns {Record<string, string>} */
export function palette() {
  if (!colours) {
    const probe = document.createElement("span");
    probe.hidden = true;
    document.body.append(probe);
    colours = Object.fromEntries(NAMES.map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color];
    }));
    probe.remove();
  }
  return colours;
}

const schemes = matchMedia("(prefers-color-scheme: dark)");
const onTheme = (/** @type {() => void} */ repaint) => {
  const forget = () => {
    colours = null;
    repaint();
  };
  schemes.addEventListener("change", forget);
  window.addEventListener("themechange", forget);
  return () => {
    schemes.removeEventListener("change", forget);
    window.removeEventListener("themechange", forget);
  };
};

/** How wide an element is, and how often the theme has changed: both ask for a new picture. */
export function useWidth() {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [width, setWidth] = useState(0);
  const [theme, setTheme] = useState(0);
  useLayoutEffect(() => {
    if (!ref.current) return undefined;
    setWidth(ref.current.clientWidth);
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => onTheme(() => setTheme((n) => n + 1)), []);
  return /** @type {const} */ ([ref, width, theme]);
}

/** @returns {CanvasRenderingContext2D} cleared, with one unit a CSS pixel */
export function prepared(/** @type {HTMLCanvasElement} */ canvas, /** @type {number} */ width, /** @type {number} */ height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(scale, scale);
  return context;
}

/**
 * A strip of parts of a whole, coloured. Where many fall on a pixel the most urgent is seen.
 * @param {{label: string, total: number, height?: number, version: unknown, mark?: number | null,
 *   parts: {from: number, to: number, colour: string, urgency: number, share?: number, blend?: {colour: string, percent: number}}[], selected?: number,
 *   onPick?: (part: number) => void, describe?: (part: number) => string}} props
 */
export const Strip = ({ label, total, parts, height = 22, version, mark = null, selected = -1, onPick, describe }) => {
  const [ref, width, theme] = useWidth();
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [hovered, setHovered] = useState(-1);
  const at = (/** @type {number} */ x) => (x / Math.max(total, 1e-9)) * width;

  useLayoutEffect(() => {
    if (!canvas.current || !width) return;
    const context = prepared(canvas.current, width, height);
    const colour = palette();
    context.fillStyle = colour.bar;
    context.fillRect(0, 3, width, height - 6);
    const gap = width / Math.max(parts.length, 1) > 5 ? 1 : 0;
    const order = parts.map((_, i) => i).sort((a, b) => parts[a].urgency - parts[b].urgency);
    for (const i of order) {
      const { from, to, share = 1, blend } = parts[i];
      const left = at(from);
      // The most urgent of thousands must still be seen.
      const wide = Math.max(at(to) - left - gap, parts[i].urgency >= 3 ? 3 : 1);
      const own = colour[parts[i].colour];
      context.fillStyle = blend ? `color-mix(in oklab, ${own}, ${colour[blend.colour]} ${blend.percent}%)` : own;
      if (share < 1) {
        context.globalAlpha = 0.35;
        context.fillRect(left, 3, wide, height - 6);
        context.globalAlpha = 1;
      }
      context.fillRect(left, 3, wide * share, height - 6);
    }
    for (const i of [hovered, selected]) {
      if (!parts[i]) continue;
      context.strokeStyle = colour.text;
      context.lineWidth = 2;
      context.strokeRect(Math.max(at(parts[i].from), 1), 1, Math.max(at(parts[i].to) - at(parts[i].from) - gap, 3), height - 2);
    }
    if (mark !== null) {
      context.fillStyle = colour.text;
      context.fillRect(Math.min(at(mark), width - 2) - 0.5, 0, 2, height);
    }
  }, [width, theme, version, parts, selected, hovered, mark, height]);

  const pick = (/** @type {MouseEvent} */ event) => {
    const x = (event.offsetX / width) * total;
    let best = -1;
    let nearest = Infinity;
    parts.forEach(({ from, to, urgency }, i) => {
      const far = x < from ? from - x : x > to ? x - to : 0;
      if (far < nearest || (far === nearest && urgency > parts[best].urgency)) [best, nearest] = [i, far];
    });
    return (nearest / total) * width < 12 ? best : -1;
  };
  return html`<div ref=${ref} class="strip">
    <canvas ref=${canvas} role="img" aria-label=${label} height=${height}
      onMouseMove=${(/** @type {MouseEvent} */ event) => setHovered(pick(event))} onMouseLeave=${() => setHovered(-1)}
      onClick=${(/** @type {MouseEvent} */ event) => { const i = pick(event); if (i >= 0) onPick?.(i); }}></canvas>
    ${hovered >= 0 && describe && parts[hovered] && html`<span class="tip" style=${{ left: `${Math.min(Math.max((at(parts[hovered].from) / width) * 100, 12), 88)}%` }}>${describe(hovered)}</span>`}
  </div>`;
};
