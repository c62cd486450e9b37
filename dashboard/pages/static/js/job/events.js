// What an event says of a whole job, known before its next summary comes.

const STATUS_AFTER = {
  job_published: "succeeded", job_failed: "failed", job_cancelled: "cancelled", job_retried: "running", job_reopened: "running",
};

/**
 * A job's summary after an event of the journal; the same one when nothing in it has changed.
 * @param {Record<string, any>} job
 * @param {import("../live.js").LiveEvent} event
 */
export function afterEvent(job, { type, data }) {
  const status = STATUS_AFTER[type];
  if (!status || job.id !== data.job_id || status === job.status) return job;
  const ended = status !== "running";
  return {
    ...job, status, reason: data.reason ?? "", finished_at: ended ? data.at : null,
    waiting_for: "", queue_position: null, can_retry: false, eta_s: null,
  };
}
