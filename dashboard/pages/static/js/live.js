// The one stream of events of a page, and whether it stands.
import { address, get, query, toLogin } from "./api.js";

/** Names of what the stream may carry: the journal's events, and states of things as they are now. */
const NAMES = [
  "job", "worker", "worker_gone",
  "node_admitted", "node_removed",
  "worker_joined", "worker_draining", "worker_enabled", "worker_left",
  "job_submitted", "task_assigned", "attempt_succeeded", "attempt_failed", "result_refused", "seam_measured",
  "task_reopened", "seam_accepted", "job_published", "job_failed", "job_cancelled", "job_prioritized", "job_retried", "job_reopened",
  "keyframes_ready", "keyframes_remade", "keyframe_replaced", "review_approved",
  "job_deleted", "licence_accepted", "removals_finished",
  // The journal is another one than before: nothing that was seen counts.
  "reset",
];
/** A hidden page gives its connection back: a browser has only six for one server. */
const HIDDEN_MS = 30_000;
const RETRY_MS = 1000;
/** After a longer break what was missed is not played back: the snapshot is read again anyhow. */
const REPLAY_MS = 60_000;

/** @typedef {{type: string, data: any}} LiveEvent */

const watchers = new Set(/** @type {((event: LiveEvent) => void)[]} */ ([]));
const resyncs = new Set(/** @type {(() => void)[]} */ ([]));
const statusWatchers = new Set(/** @type {((status: string) => void)[]} */ ([]));

/** @type {EventSource | null} */
let source = null;
/** Number of the newest event that was seen; null: none, so begin now. @type {number | null} */
let lastEventId = null;
let status = "connecting";
/** When the stream broke. @type {number | null} */
let brokenAt = null;
/** @type {number | undefined} */
let retryTimer;
/** @type {number | undefined} */
let hiddenTimer;

/**
 * Follow the farm from a snapshot's `last_event_id` on. The first call opens the stream.
 * @param {number | null} after null: from now on; `onResync` is called when "now" has begun
 * @param {(event: LiveEvent) => void} onEvent
 * @param {() => void} onResync something may have been missed: look at the snapshot again
 * @returns {() => void} ends it
 */
export function follow(after, onEvent, onResync) {
  watchers.add(onEvent);
  resyncs.add(onResync);
  lastEventId ??= after;
  if (!source && retryTimer === undefined) open();
  return () => {
    watchers.delete(onEvent);
    resyncs.delete(onResync);
  };
}

/** Be told "connecting", "live" or "reconnecting", now and whenever it changes. */
export function watchStatus(/** @type {(status: string) => void} */ onStatus) {
  statusWatchers.add(onStatus);
  onStatus(status);
  return () => statusWatchers.delete(onStatus);
}

function open() {
  retryTimer = undefined;
  if (brokenAt !== null && Date.now() - brokenAt > REPLAY_MS) lastEventId = null;
  source = new EventSource(address(`/events${query({ after: lastEventId })}`));
  source.onopen = () => {
    say("live");
    if (brokenAt !== null || lastEventId === null) for (const resync of [...resyncs]) resync();
    brokenAt = null;
  };
  // The browser would try again by itself, but never after an answer that is an error, as a proxy gives one.
  source.onerror = () => interrupted();
  for (const name of NAMES) source.addEventListener(name, take);
}

function take(/** @type {MessageEvent} */ message) {
  if (message.type === "reset") {
    lastEventId = Number(message.lastEventId);
    for (const resync of [...resyncs]) resync();
    return;
  }
  // An event without a number carries that of the one before.
  lastEventId = Math.max(lastEventId ?? 0, Number(message.lastEventId));
  const event = { type: message.type, data: JSON.parse(message.data) };
  for (const watcher of [...watchers]) watcher(event);
}

function interrupted() {
  close();
  say("reconnecting");
  retryTimer = window.setTimeout(reopen, RETRY_MS);
}

/** An EventSource does not say why it failed: ask whether the farm is there, and still knows us. */
async function reopen() {
  try {
    const { principal } = await get("/session");
    if (!principal) toLogin();
    else open();
  } catch {
    retryTimer = window.setTimeout(reopen, RETRY_MS);
  }
}

function close() {
  if (source) brokenAt ??= Date.now();
  source?.close();
  source = null;
}

function say(/** @type {string} */ now) {
  status = now;
  for (const watcher of [...statusWatchers]) watcher(status);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) {
    hiddenTimer = window.setTimeout(close, HIDDEN_MS);
  } else if (!source && retryTimer === undefined && watchers.size) {
    open();
  }
});
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", (event) => {
  if (event.persisted && !source && watchers.size) open();
});
