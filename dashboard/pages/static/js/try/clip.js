// What is made, on a canvas: its first picture while it is made, then all of them, again and again.
import { html, useEffect, useRef, useState } from "../html.js";

/**
 * @param {{first: Uint8ClampedArray | null, clip: Uint8ClampedArray | null, wish: {width: number, height: number, prompt: string} | null, fps: number}} props
 *   first, clip: RGBA of one frame, and of all
 */
export const Clip = ({ first, clip, wish, fps }) => {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [playing, setPlaying] = useState(true);
  const place = useRef(0);
  const { width = 128, height = 128, prompt = "" } = wish ?? {};
  const size = 4 * width * height;
  const draw = (/** @type {Uint8ClampedArray} */ pixels) =>
    canvas.current?.getContext("2d")?.putImageData(new ImageData(/** @type {any} */ (pixels), width, height), 0, 0);
  useEffect(() => {
    place.current = 0;
    setPlaying(true);
  }, [clip]);
  useEffect(() => {
    if (!clip) {
      if (first) draw(first);
      canvas.current?.scrollIntoView({ block: "nearest" });
      return undefined;
    }
    const next = () => {
      draw(clip.subarray(place.current * size, (place.current + 1) * size));
      place.current = (place.current + 1) % (clip.length / size);
    };
    next();
    const timer = playing ? setInterval(next, 1000 / fps) : 0;
    return () => clearInterval(timer);
  }, [first, clip, playing, width, height]);
  if (!first && !clip) return html`<div class="empty"><p class="empty-title">The video plays here.</p><p>The first time, some 45 MB are fetched; the browser keeps them.</p></div>`;
  return html`<div class="try-clip"><canvas ref=${canvas} width=${width} height=${height} role="img" data-testid="clip" data-playing=${clip !== null && playing}
      aria-label=${clip ? `The video: ${prompt || "no prompt"}` : "The first picture of the video"}></canvas>
    ${clip && html`<button type="button" class="button small" onClick=${() => setPlaying(!playing)}>${playing ? "Pause" : "Play"}</button>`}</div>`;
};
