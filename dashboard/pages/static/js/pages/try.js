// A short video made in this tab, by no farm: the model of the farm in a worker of the page.
import { html, useEffect, useRef, useState } from "../html.js";
import { plural } from "../format.js";
import { Icon } from "../icons.js";
import { Bar, Button, Card, ErrorNote } from "../parts.js";
import { ThemeOnly, start } from "../shell.js";
import { Clip } from "../try/clip.js";
import { FRAMES, MODEL_WORDS, SIZES, fits, progressOf, sizeFor, troubleOf } from "../try/wishes.js";
import { handOver } from "../try/hand_over.js";

const { files, farm, sample } = /** @type {{files: string, farm?: string, sample: string}} */ (/** @type {unknown} */ (document.body.dataset));
const MODEL_FPS = 8;

const TryHere = () => {
  const [photo, setPhoto] = useState(/** @type {File | null} */ (null));
  const [prompt, setPrompt] = useState("the camera slowly zooms in");
  const [suited, setSuited] = useState("128x128");
  const [chosen, setSize] = useState("");
  const [frames, setFrames] = useState(17);
  const [seed, setSeed] = useState("0");
  const making = useMaking();
  const [error, setError] = useState(/** @type {any} */ (null));
  const picture = useAddress(photo);
  useEffect(() => making.prepare(true), []);
  const onFiles = async (/** @type {File[]} */ [file]) => {
    if (!file) return;
    setError(null);
    setPhoto(file);
    making.prepare();
    const shape = await shapeOf(file);
    if (shape) setSuited(sizeFor(shape));
  };
  const dragged = useDrop(onFiles);
  const onSample = async () => {
    const blob = await (await fetch(sample)).blob();
    await onFiles([new File([blob], "coffee.jpg", { type: "image/jpeg" })]);
  };
  const size = chosen || suited;
  const [width, height] = size.split("x").map(Number);
  const seedWrong = !/^\d{1,20}$/.test(seed) || BigInt(seed) >= 1n << 64n;
  const make = () => photo && making.make(photo, { width, height, frames, prompt, seed: BigInt(seed) });
  const ready = photo !== null && !seedWrong && !making.busy;
  const { done, busy } = making;

  return html`<div class="page-head"><h1>Try it in this browser</h1></div>
  <p class="quiet">A short video of your photo, made in this tab by tiny_wan, the small model of Reelfarm. The photo stays on this machine.</p>
  <form class="submit try" onSubmit=${(/** @type {Event} */ event) => {
    event.preventDefault();
    if (ready) make();
  }}>
    <div class="stack">
      <${Card} title="Start from">
        <label class=${`drop ${dragged ? "dragged" : ""} ${picture ? "with-picture" : ""}`} data-testid="drop">
          <input type="file" class="visually-hidden" accept="image/*" aria-label="Choose a photo"
            onChange=${(/** @type {any} */ event) => { onFiles([...event.target.files]); event.target.value = ""; }} />
          ${picture ? html`<img src=${picture} alt="The photo that was chosen" /><span class="quiet">${photo?.name}. Drop another, or <u>choose one</u>.</span>`
            : html`<${Icon} name="picture" /><span class="drop-title">Drop a photo here, or <u>choose a file</u></span><span class="quiet">Pasting works too.</span>`}
        </label>
        ${!photo && html`<div class="row sample"><${Button} onPress=${onSample} testid="sample">Take the sample photo</${Button}></div>`}
        <div class="field prompt"><label for="prompt">Prompt</label>
          <textarea id="prompt" name="prompt" rows="2" aria-describedby="prompt-hint" value=${prompt} onInput=${(/** @type {any} */ event) => setPrompt(event.target.value)}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ready && make()}></textarea>
          <p class="hint" id="prompt-hint">${MODEL_WORDS}</p></div>
      </${Card}>
      <${Card} title="Settings">
        <div class="field-grid">
          <label class="field"><span>Length</span><select name="frames" value=${frames} onChange=${(/** @type {any} */ event) => setFrames(Number(event.target.value))}>
            ${FRAMES.map((n) => html`<option key=${n} value=${n} disabled=${!fits(n, width, height)}>${`${n} frames, ${(n / MODEL_FPS).toFixed(1)} s`}</option>`)}</select></label>
          <label class="field"><span>Size</span><select name="size" value=${size} onChange=${(/** @type {any} */ event) => setSize(event.target.value)}>
            ${SIZES.map(([w, h]) => html`<option key=${`${w}x${h}`} value=${`${w}x${h}`} disabled=${!fits(frames, w, h)}>${`${w} × ${h}`}</option>`)}</select></label>
          <label class="field"><span>Seed</span><input name="seed" inputmode="numeric" value=${seed} aria-invalid=${seedWrong || undefined}
            onInput=${(/** @type {any} */ event) => setSeed(event.target.value.trim())} /></label>
        </div>
        ${seedWrong && html`<p class="field-error" role="alert">The seed is a whole number from 0 to 18446744073709551615.</p>`}
        <p class="quiet small-text">The farm makes the same video of the same photo, prompt, size and seed.</p>
      </${Card}>
    </div>
    <div class="submit-side">
      <${Card} title="Clip">
        <${Clip} first=${making.first} clip=${making.clip} wish=${making.wish} fps=${MODEL_FPS} />
        <div class="try-progress" aria-live="polite">
          ${busy && html`<${Bar} value=${progressOf(making.progress)[0]} label="Progress" /><p class="quiet" data-testid="stage">${progressOf(making.progress)[1]}</p>`}
          ${done !== null && html`<p class="quiet" data-testid="done">${`Made in ${done.toFixed(1)} s on ${making.onCard ? "the graphics card" : plural(making.threads, "thread")}.`}</p>`}
        </div>
        ${making.threads === 1 && !making.onCard && html`<p class="quiet small-text" data-testid="one-thread">${oneThread()}</p>`}
        <${ErrorNote} error=${error ?? making.error} />
      </${Card}>
      <div class="submit-actions">
        <div class="row">${/* Keys: the element pressed must not become the one that submits. */ busy ? html`<button key="cancel" type="button" class="button large" data-testid="cancel" onClick=${making.cancel}>Cancel</button>`
          : html`<button key="make" type="submit" class="button primary large" disabled=${!ready} data-testid="make">Make the video</button>`}
          ${making.clip && !busy && html`<${Button} kind="large" onPress=${() => making.download().catch(setError)} testid="download"><${Icon} name="download" />Download</${Button}>`}</div>
        ${farm !== undefined && photo && html`<${Button} onPress=${() => handOver(photo, prompt, seed).catch(setError)} testid="hand-over">Render it in full on the farm</${Button}>`}
      </div>
    </div>
  </form>`;
};

const oneThread = () => (crossOriginIsolated ? "" : isSecureContext
  ? "It computes on one thread: the server of this page does not isolate it, which more threads need."
  : "It computes on one thread: browsers give a page more only over HTTPS, or from this machine itself.");

const base = () => new URL(files, document.baseURI).href;

/** The worker, and what has come from it. */
function useMaking() {
  const worker = useRef(/** @type {Worker | null} */ (null));
  const [now, setNow] = useState(/** @type {any} */ ({ busy: false, progress: null, first: null, clip: null, wish: null, threads: null, onCard: false, done: null, error: null }));
  const packed = useRef(/** @type {{done: (made: any) => void, failed: (error: any) => void} | null} */ (null));
  const began = useRef(0);
  const change = (/** @type {any} */ fresh) => setNow((/** @type {any} */ before) => ({ ...before, ...fresh }));
  const end = () => {
    worker.current?.terminate();
    worker.current = null;
  };
  const fail = (/** @type {string} */ code, /** @type {string} */ detail) => {
    // What failed for want of memory holds it still.
    if (code !== "picture") end();
    const error = { message: troubleOf(code, detail, farm !== undefined) };
    packed.current?.failed(error);
    packed.current = null;
    change({ busy: false, progress: null, error });
  };
  const HEARD = /** @type {Record<string, (message: any) => void>} */ ({
    first: ({ pixels }) => change({ first: pixels }),
    by: ({ threads, onCard }) => change({ threads, onCard }),
    progress: (progress) => setNow((/** @type {any} */ before) => (before.busy ? { ...before, progress } : before)),
    clip: ({ frames }) => change({ busy: false, progress: null, clip: frames, done: (performance.now() - began.current) / 1000 }),
    packed: (made) => packed.current?.done(made),
    trouble: ({ code, detail }) => fail(code, detail),
  });
  const running = () => {
    if (!worker.current) {
      worker.current = new Worker(new URL("../try/worker.js", import.meta.url), { type: "module", name: "tiny_wan" });
      worker.current.onmessage = ({ data }) => HEARD[data.kind](data);
      worker.current.onerror = (event) => {
        event.preventDefault();
        fail("worker", event.message ?? "");
      };
    }
    return worker.current;
  };
  useEffect(() => end, []);
  return {
    ...now,
    make(/** @type {File} */ photo, /** @type {any} */ wish) {
      began.current = performance.now();
      change({ busy: true, progress: { stage: "start", done: 0, total: 1 }, first: null, clip: null, wish, done: null, error: null });
      running().postMessage({ order: "make", base: base(), photo, wish });
    },
    /** Most of what the first video waits for is the model. */
    prepare(ifKept = false) {
      running().postMessage({ order: "prepare", base: base(), ifKept });
    },
    cancel() {
      end();
      change({ busy: false, progress: null, first: null });
    },
    async download() {
      const { width, height } = now.wish;
      const made = await new Promise((done, failed) => {
        packed.current = { done, failed };
        running().postMessage({ order: "pack", frames: now.clip, width, height, fps: MODEL_FPS });
      });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(made.blob);
      link.download = `reelfarm-${now.wish.seed}.${made.suffix}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
  };
}

/** The address of a file's picture, while it is shown. */
function useAddress(/** @type {File | null} */ file) {
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (!file) return undefined;
    const fresh = URL.createObjectURL(file);
    setAddress(fresh);
    return () => URL.revokeObjectURL(fresh);
  }, [file]);
  return address;
}

/** Anywhere on the page is good for a drop or a paste. */
function useDrop(/** @type {(files: File[]) => void} */ onFiles) {
  const [dragged, setDragged] = useState(false);
  useEffect(() => {
    const pictures = (/** @type {DataTransfer | null} */ transfer) => [...(transfer?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
    const over = (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      setDragged(true);
    };
    const leave = () => setDragged(false);
    const drop = (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      setDragged(false);
      onFiles(pictures(event.dataTransfer));
    };
    const paste = (/** @type {ClipboardEvent} */ event) => onFiles(pictures(event.clipboardData));
    const listeners = /** @type {const} */ ([["dragover", over], ["dragleave", leave], ["drop", drop], ["paste", paste]]);
    for (const [name, listener] of listeners) document.addEventListener(name, /** @type {any} */ (listener));
    return () => {
      for (const [name, listener] of listeners) document.removeEventListener(name, /** @type {any} */ (listener));
    };
  }, []);
  return dragged;
}

/** Width over height of a picture; null: the browser cannot read it, which is said when it is made. */
async function shapeOf(/** @type {File} */ file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  const shape = image && image.width / image.height;
  image?.close();
  return shape;
}

start(TryHere, ThemeOnly);
