// One job as columns, kept up to date by the farm's events: a long job has thousands of segments.
import { get, query } from "../api.js";
import { useEffect, useRef, useState } from "../html.js";
import { afterEvent } from "./events.js";
import { follow } from "../live.js";
import { throttled } from "../throttle.js";

/** A page is painted anew this often at most. */
const PAINT_MS = 100;

/**
 * @typedef {object} Segments columns, one entry a segment
 * @property {string[]} id @property {number[]} shot @property {string[]} level
 * @property {number[]} start @property {number[]} end @property {number[]} head
 * @property {string[]} status @property {number[]} take
 * @property {number[]} worker position in `workers`, -1: none
 * @property {(number | null)[]} assigned_at @property {(number | null)[]} ended_at @property {number[]} done_fraction
 *
 * @typedef {object} Attempts columns, one entry an attempt
 * @property {(string | null)[]} id null: of the snapshot @property {number[]} segment @property {number[]} worker
 * @property {number[]} started_at @property {(number | null)[]} ended_at @property {string[]} outcome
 *
 * @typedef {{after: string, before: string, start: number, overlap: number, accepted_take: number | null, passed: boolean,
 *   failed_gates: string[], decision: string, report: Record<string, any>, takes: SeamTake[]}} SeamRow
 * @typedef {{take: number, passed: boolean, failed_gates: string[], report?: Record<string, any>}} SeamTake
 */

export class JobModel {
  /**
   * @param {string} jobId
   * @param {{segments: Segments, workers: string[], attempts: Attempts}} timeline as the API has it
   */
  constructor(jobId, { segments, workers, attempts }) {
    this.jobId = jobId;
    this.segments = segments;
    this.workers = workers;
    this.attempts = { ...attempts, id: attempts.segment.map(() => null) };
    this.numberOf = new Map(segments.id.map((id, i) => [id, i]));
    this.workerOf = new Map(workers.map((id, i) => [id, i]));
    /** @type {number[] | null} */
    this.finalNumbers = null;
    /** @type {Map<string, SeamRow>} by the later segment */
    this.seams = new Map();
  }

  /**
   * Take in an event of this job, or what a worker does.
   * @returns {boolean} whether anything here has changed
   */
  apply(/** @type {import("../live.js").LiveEvent} */ { type, data }) {
    if (type === "worker") return this.#watch(data);
    if (type === "keyframes_remade" || type === "keyframe_replaced") return this.#reopenAll(data.takes);
    const i = this.numberOf.get(data.task_id);
    if (i === undefined) return type === "job_reopened" && this.#reopenAll(data.takes ?? {});
    const { segments, attempts } = this;
    switch (type) {
      case "task_assigned":
        if (this.#knows(data, i)) return false;
        attempts.id.push(data.attempt_id);
        attempts.segment.push(i);
        attempts.worker.push(this.#worker(data.worker_id));
        attempts.started_at.push(data.at);
        attempts.ended_at.push(null);
        attempts.outcome.push("running");
        segments.status[i] = "running";
        segments.worker[i] = this.#worker(data.worker_id);
        segments.assigned_at[i] = data.at;
        segments.done_fraction[i] = 0;
        return true;
      case "attempt_succeeded": {
        const own = this.#end(data, i, "succeeded");
        if (own < 0) return false;
        segments.status[i] = "done";
        segments.ended_at[i] = data.at;
        segments.done_fraction[i] = 1;
        segments.worker[i] = attempts.worker[own];
        return true;
      }
      case "attempt_failed":
        if (this.#end(data, i, data.kind) < 0) return false;
        if (segments.status[i] === "running" && !this.running(i).length) segments.status[i] = "ready";
        return true;
      case "task_reopened":
        this.#reopen(i, data.take);
        return true;
      case "seam_measured":
        this.#measured(data, i);
        return true;
      case "seam_accepted": {
        const seam = this.seams.get(data.task_id);
        if (seam) accept(seam, data.take);
        return Boolean(seam);
      }
      default:
        return false;
    }
  }

  /** Numbers of a segment's attempts that run. */
  running(/** @type {number} */ segment) {
    const found = [];
    for (let a = this.attempts.segment.length - 1; a >= 0; a -= 1) {
      if (this.attempts.segment[a] === segment && this.attempts.outcome[a] === "running") found.push(a);
    }
    return found;
  }

  #worker(/** @type {string} */ id) {
    let number = this.workerOf.get(id);
    if (number === undefined) {
      number = this.workers.push(id) - 1;
      this.workerOf.set(id, number);
    }
    return number;
  }

  /** Whether an assignment is in the snapshot, where attempts have no ids, or came before. */
  #knows(/** @type {any} */ data, /** @type {number} */ segment) {
    const { attempts } = this;
    return attempts.id.includes(data.attempt_id)
      || attempts.segment.some((own, a) => own === segment && attempts.id[a] === null && attempts.started_at[a] >= data.at);
  }

  /** The attempt that has ended; -1 when it had before. */
  #end(/** @type {any} */ data, /** @type {number} */ segment, /** @type {string} */ outcome) {
    const { attempts } = this;
    const running = this.running(segment);
    const own = running.find((a) => attempts.id[a] === data.attempt_id) ?? running.find((a) => attempts.id[a] === null) ?? -1;
    if (own >= 0) {
      attempts.outcome[own] = outcome;
      attempts.ended_at[own] = data.at;
    }
    return own;
  }

  #reopen(/** @type {number} */ i, /** @type {number} */ take) {
    const { segments } = this;
    if (segments.take[i] >= take) return; // the snapshot has it
    segments.status[i] = "ready";
    segments.take[i] = take;
    segments.ended_at[i] = null;
    segments.done_fraction[i] = 0;
  }

  #reopenAll(/** @type {Record<string, number>} */ takes) {
    for (const [id, take] of Object.entries(takes)) this.#reopen(this.numberOf.get(id) ?? 0, take);
    return true;
  }

  #watch(/** @type {any} */ worker) {
    let changed = false;
    for (const task of worker.tasks ?? []) {
      const i = this.numberOf.get(task.task_id);
      if (i === undefined || task.job_id !== this.jobId || this.segments.status[i] !== "running") continue;
      if (task.done_fraction > this.segments.done_fraction[i]) {
        this.segments.done_fraction[i] = task.done_fraction;
        changed = true;
      }
    }
    return changed;
  }

  #measured(/** @type {any} */ data, /** @type {number} */ i) {
    const { segments } = this;
    const finals = this.finals();
    const before = finals[finals.indexOf(i) - 1];
    const measured = { take: data.take, passed: data.passed, failed_gates: data.report.failed_gates ?? [], report: data.report };
    const others = (this.seams.get(data.task_id)?.takes ?? []).filter(({ take }) => take !== data.take);
    this.seams.set(data.task_id, {
      after: segments.id[before] ?? "", before: data.task_id, start: segments.start[i], overlap: segments.head[i],
      accepted_take: null, passed: data.passed, failed_gates: measured.failed_gates, decision: "not decided yet",
      report: data.report, takes: [...others, measured],
    });
  }

  /** Numbers of the segments that are joined into the video, in order. */
  finals() {
    const { level } = this.segments;
    this.finalNumbers ??= level.flatMap((name, i) => (name === "final" ? [i] : []));
    return this.finalNumbers;
  }
}

/** A seam is decided: the take that is kept is the one that is told. */
function accept(/** @type {SeamRow} */ seam, /** @type {number} */ take) {
  const kept = seam.takes.find((each) => each.take === take);
  seam.accepted_take = take;
  if (kept) {
    seam.passed = kept.passed;
    seam.failed_gates = kept.failed_gates;
    seam.report = kept.report ?? seam.report;
  }
  seam.decision = seam.passed ? "gates passed"
    : `kept with failed gates after ${seam.takes.length} takes: ${seam.failed_gates.join(", ")}`;
}

/**
 * The job of this page, its segments, and how often they have changed.
 * @param {string} id
 */
export function useJob(id) {
  const [job, setJob] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [version, setVersion] = useState(0);
  const model = useRef(/** @type {JobModel | null} */ (null));

  useEffect(() => {
    let end = () => {};
    /** @type {number | undefined} */
    let retry;
    /** Number of the newest event that is in the columns. */
    let seen = 0;
    const paint = throttled(() => setVersion((n) => n + 1), PAINT_MS);
    const load = async () => {
      clearTimeout(retry);
      try {
        const [summary, timeline] = await Promise.all([get(`/jobs/${id}`), get(`/jobs/${id}/timeline`)]);
        const fresh = new JobModel(id, timeline);
        model.current = fresh;
        seen = timeline.last_event_id;
        setJob(summary);
        setError(null);
        setVersion((n) => n + 1);
        end();
        // The numbers of events are the farm's: an old job's is far behind, and what came since is not its own.
        end = follow(summary.status === "running" ? seen : null, take, check);
      } catch (problem) {
        setError(problem);
        if (problem.status !== 404) retry = window.setTimeout(load, 2000);
      }
    };
    const check = async () => {
      try {
        const summary = await get(`/jobs/${id}`);
        setJob(summary);
        if (summary.last_event_id !== seen) load();
      } catch {
        load(); // it says what is wrong, and tries again
      }
    };
    const take = (/** @type {import("../live.js").LiveEvent} */ event) => {
      const { type, data } = event;
      if (type === "job") {
        if (data.id !== id) return;
        setJob(data);
        seen = data.last_event_id; // its events came before
      } else if (type === "worker" || data.job_id === id) {
        if (type === "job_deleted") setError({ status: 404, message: "This job has been deleted." });
        if (type.startsWith("job_")) setJob((/** @type {any} */ before) => before && afterEvent(before, event));
        if (model.current?.apply(event)) paint();
      }
    };
    load();
    return () => {
      end();
      paint.cancel();
      clearTimeout(retry);
    };
  }, [id]);
  return { job, model: model.current, version, error };
}

/** Reads every seam that was measured into the model; they come in pages. */
export async function readSeams(/** @type {JobModel} */ model, /** @type {() => void} */ onPage) {
  let cursor = null;
  do {
    const page = await get(`/jobs/${model.jobId}/seams${query({ limit: 200, cursor })}`);
    for (const seam of page.data) model.seams.set(seam.before, seam);
    onPage();
    cursor = page.next_cursor;
  } while (cursor);
}
