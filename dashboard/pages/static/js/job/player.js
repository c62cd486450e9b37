// The video: as it grows while segments land, then the finished one, at the same place.
import { address, get, query } from "../api.js";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { duration } from "../format.js";
import { Strip } from "../paint.js";
import { Icon } from "../icons.js";
import { Picture, hide } from "../parts.js";

const CHUNK_BYTES = 4 << 20;
const POLL_MS = 1500;
/** What lies this far behind the place that is played may be dropped when the browser's memory for it is full. */
const KEEP_BEHIND_S = 20;

/** Safari on phones has it under another name. */
const Source = window.MediaSource ?? /** @type {any} */ (window).ManagedMediaSource;

/** Feeds a growing file to a video element. */
class GrowingVideo {
  /**
   * @param {HTMLVideoElement} video @param {string} jobId
   * @param {number} duration_s of the whole video, so that the place in it can be seen
   * @param {(buffered_s: number) => void} onGrown
   */
  constructor(video, jobId, duration_s, onGrown) {
    this.video = video;
    this.jobId = jobId;
    this.duration_s = duration_s;
    this.onGrown = onGrown;
    this.abort = new AbortController();
    this.offset = 0;
    this.blob = "";
    /** @type {SourceBuffer | null} */
    this.buffer = null;
    this.#run();
  }

  stop() {
    this.abort.abort();
    URL.revokeObjectURL(this.blob);
  }

  async #run() {
    while (!this.abort.signal.aborted) {
      try {
        if (this.buffer === null) await this.#open();
        while (this.buffer !== null && await this.#pull());
      } catch {
        if (this.abort.signal.aborted) return;
        this.buffer = null; // another file under the same name, or no connection: from the beginning
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** What there is of the file now; null: nothing. Asking the list instead of the file makes no errors. */
  async #file() {
    const { data } = await get(`/jobs/${this.jobId}/artifacts`, { signal: this.abort.signal });
    return data.find((/** @type {any} */ artifact) => artifact.name === "so-far.mp4" && artifact.ready) ?? null;
  }

  async #open() {
    const file = await this.#file();
    if (!file) return;
    const head = await fetch(file.href, { method: "HEAD", signal: this.abort.signal });
    const codec = head.headers.get("X-Codec");
    if (!head.ok || !codec) return;
    const media = new Source();
    const { currentTime } = this.video;
    if (!window.MediaSource) this.video.disableRemotePlayback = true;
    URL.revokeObjectURL(this.blob);
    this.blob = URL.createObjectURL(media);
    this.video.src = this.blob;
    await new Promise((resolve) => media.addEventListener("sourceopen", resolve, { once: true }));
    this.buffer = media.addSourceBuffer(`video/mp4; codecs="${codec}"`);
    media.duration = this.duration_s;
    this.offset = 0;
    if (currentTime > 0) this.video.currentTime = currentTime;
  }

  /** @returns {Promise<boolean>} whether there is more at once */
  async #pull() {
    const file = await this.#file();
    if (!file || file.size_bytes === this.offset) return false;
    if (file.size_bytes < this.offset) throw new Error("the file has begun anew");
    const last = Math.min(this.offset + CHUNK_BYTES, file.size_bytes) - 1;
    const answer = await fetch(file.href, { headers: { Range: `bytes=${this.offset}-${last}` }, signal: this.abort.signal, cache: "no-store" });
    if (answer.status !== 206) throw new Error(`a range was answered with ${answer.status}`);
    const bytes = await answer.arrayBuffer();
    await this.#append(bytes);
    this.offset += bytes.byteLength;
    const { buffered } = this.video;
    if (buffered.length) this.onGrown(buffered.end(buffered.length - 1));
    return bytes.byteLength === CHUNK_BYTES;
  }

  async #append(/** @type {ArrayBuffer} */ bytes) {
    const buffer = /** @type {SourceBuffer} */ (this.buffer);
    try {
      buffer.appendBuffer(bytes);
    } catch (error) {
      if (/** @type {any} */ (error).name !== "QuotaExceededError") throw error;
      buffer.remove(0, Math.max(this.video.currentTime - KEEP_BEHIND_S, 0.01));
      await ended(buffer);
      buffer.appendBuffer(bytes);
    }
    await ended(buffer);
  }
}

const ended = (/** @type {SourceBuffer} */ buffer) => new Promise((resolve, reject) => {
  buffer.addEventListener("updateend", resolve, { once: true });
  buffer.addEventListener("error", () => reject(new Error("these bytes are no video")), { once: true });
});

const STATUS_COLOURS = { done: "good", running: "run", ready: "bar", waiting: "bar" };

/** @param {{job: any, model: import("./model.js").JobModel, version: number, onPick: (segment: number) => void}} props */
export const Player = ({ job, model, version, onPick }) => {
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const [grown, setGrown] = useState(0);
  const [time, setTime] = useState(0);
  const finished = useFinished(job);
  const total_s = job.num_frames / job.fps;
  const growing = finished === null && job.status === "running" && Boolean(Source);

  useEffect(() => {
    const element = video.current;
    if (!element || finished === null) return;
    const { currentTime, paused } = element;
    element.src = finished;
    element.load(); // a new video has the address of the old one
    if (currentTime > 0) element.addEventListener("loadedmetadata", () => { element.currentTime = Math.min(currentTime, element.duration); }, { once: true });
    if (!paused) element.play().catch(() => {});
  }, [finished]);
  useEffect(() => {
    if (!growing || !video.current) return undefined;
    const feeding = new GrowingVideo(video.current, job.id, total_s, setGrown);
    return () => feeding.stop();
  }, [growing, job.id]);

  const finals = model.finals();
  const parts = useMemo(() => finals.map((i, n) => ({
    from: model.segments.start[i], to: model.segments.start[finals[n + 1]] ?? job.rendered_frames, colour: STATUS_COLOURS[model.segments.status[i]] ?? "bar",
    urgency: model.segments.status[i] === "running" ? 2 : model.segments.status[i] === "done" ? 0 : 1,
    share: model.segments.status[i] === "running" ? Math.max(model.segments.done_fraction[i], 0.04) : 1,
  })), [model, version]);
  const done = parts.filter(({ colour }) => colour === "good").length;
  const empty = finished === null && grown === 0;
  return html`<div class="player">
    <div class="screen" style=${{ aspectRatio: `${job.width} / ${job.height}` }}>
      <video ref=${video} controls muted playsinline loop=${finished !== null} preload="auto" aria-label="The video" data-testid="player" class=${empty ? "hollow" : ""}
        onTimeUpdate=${(/** @type {any} */ event) => setTime(event.currentTarget.currentTime)}></video>
      ${empty && html`<img class="screen-input" src=${address(`/jobs/${job.id}/input?index=0`)} onError=${hide} alt="What the video starts from" />
        <p class="screen-note">${job.status === "running" ? "The video plays here as soon as its first segments are joined" : "There is no video of this job"}</p>`}
    </div>
    <${Strip} label=${`${done} of ${finals.length} segments of the video are rendered`} total=${job.rendered_frames} parts=${parts} version=${version}
      mark=${empty ? null : time * job.rendered_fps} onPick=${(/** @type {number} */ part) => onPick(finals[part])}
      describe=${(/** @type {number} */ part) => describe(model, finals[part])} />
    <p class="small-text quiet" data-testid="player-note">${note(job, finished, grown, total_s)}</p>
  </div>`;
};

function describe(/** @type {import("./model.js").JobModel} */ { segments }, /** @type {number} */ i) {
  return `${segments.id[i]}, frames ${segments.start[i]}–${segments.end[i] - 1}: ${segments.status[i] === "done" ? "rendered" : segments.status[i]}`;
}

function note(/** @type {any} */ job, /** @type {string | null} */ finished, /** @type {number} */ grown, /** @type {number} */ total_s) {
  if (finished !== null && job.status === "running") return "The video as it was before; it is replaced when the new segments are joined.";
  if (finished !== null) return `The finished video, ${duration(total_s)}.`;
  if (grown > 0) return `${duration(Math.min(grown, total_s))} of ${duration(total_s)} can be played; more comes as segments land.`;
  return job.status === "running" && !Source ? "This browser plays the video when it is finished." : "";
}

/** Address of the published video, another one after a re-render; null while there is none. */
function useFinished(/** @type {any} */ job) {
  const [finished, setFinished] = useState(/** @type {string | null} */ (null));
  useEffect(() => {
    get(`/jobs/${job.id}/artifacts`).then(({ data }) => {
      const ready = data.find((/** @type {any} */ artifact) => artifact.name === "video.mp4" && artifact.ready);
      // While it is rendered again the address stays, and with it the player.
      setFinished((before) => (ready ? (job.finished_at === null && before) || `${ready.href}#${job.finished_at ?? ""}` : null));
    }, () => {});
  }, [job.id, job.status, job.finished_at]);
  return finished;
}

/** The segments that landed last, as pictures. @param {{job: any, model: import("./model.js").JobModel, version: number, onPick: (segment: number) => void}} props */
export const Landed = ({ job, model, version, onPick }) => {
  const newest = useMemo(() => {
    const { segments } = model;
    const done = segments.id.map((_, i) => i).filter((i) => segments.status[i] === "done" && segments.ended_at[i] !== null);
    return done.sort((a, b) => (segments.ended_at[b] ?? 0) - (segments.ended_at[a] ?? 0)).slice(0, 12);
  }, [model, version]);
  if (!newest.length) return html`<p class="quiet small-text landed-none"><${Icon} name="film" /> Pictures of the segments appear here as they land.</p>`;
  return html`<ul class="landed" data-testid="landed">${newest.map((i) => {
    const { id, take, start, end } = model.segments;
    return html`<li key=${`${id[i]}/${take[i]}`}><button type="button" onClick=${() => onPick(i)} aria-label=${`Look at ${id[i]}`}>
      <${Picture} src=${pictureOf(job.id, id[i])} version=${take[i]} alt="" loading="lazy" width=${job.width} height=${job.height} />
      <span>${id[i]} <small class="quiet">${start[i]}–${end[i] - 1}</small></span></button></li>`;
  })}</ul>`;
};

/** Of a segment, or of one of its frames. */
export const pictureOf = (/** @type {string} */ jobId, /** @type {string} */ id, /** @type {number | null} */ frame = null) =>
  address(`/jobs/${jobId}/segments/${id}/picture${query({ frame })}`);
