// Jobs in a list that is live: kept up to date by the stream, filtered and paged by the API.
import { address, get, query } from "../api.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { about, count, moment, momentExactly, share, words } from "../format.js";
import { afterEvent } from "./events.js";
import { follow } from "../live.js";
import { Bar, JobBadge, hide } from "../parts.js";

/** @typedef {Record<string, any>} Job a JobSummary */
/** @typedef {{status: string, model: string, q: string, cursor: string, limit: number}} Wanted */

/**
 * One page of jobs.
 * @param {Wanted} wanted
 * @returns {{jobs: Job[] | null, next: string | null, error: any}}
 */
export function useJobs(wanted) {
  const [jobs, setJobs] = useState(/** @type {Job[] | null} */ (null));
  const [next, setNext] = useState(/** @type {string | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const latest = useRef(wanted);
  latest.current = wanted;
  const key = query(wanted);
  useEffect(() => {
    let end = () => {};
    /** @type {number | undefined} */
    let timer;
    let gone = false;
    const load = async () => {
      clearTimeout(timer);
      try {
        const page = await get(`/jobs${key}`);
        if (gone) return;
        setJobs(page.data);
        setNext(page.next_cursor);
        setError(null);
        end();
        end = follow(page.last_event_id ?? 0, take, load);
      } catch (problem) {
        if (gone) return;
        setError(problem);
        if (problem.status === 0 || problem.status >= 500) timer = window.setTimeout(load, 2000);
      }
    };
    const take = (/** @type {import("../live.js").LiveEvent} */ event) => {
      const { type, data } = event;
      if (type === "job") {
        setJobs((before) => merged(before, data, latest.current));
      } else if (type === "job_deleted") {
        setJobs((before) => before?.filter((job) => job.id !== data.job_id) ?? null);
      } else if (type.startsWith("job_")) {
        setJobs((before) => {
          const own = before?.find((job) => job.id === data.job_id);
          const changed = own && afterEvent(own, event);
          return own && changed !== own ? merged(before, changed, latest.current) : before;
        });
      }
    };
    load();
    return () => {
      gone = true;
      end();
      clearTimeout(timer);
    };
  }, [key]);
  return { jobs, next, error };
}

/** The list with a job as it is now: in its place, new at the top of the first page, or out of it. */
function merged(/** @type {Job[] | null} */ jobs, /** @type {Job} */ job, /** @type {Wanted} */ wanted) {
  if (!jobs) return jobs;
  const at = jobs.findIndex(({ id }) => id === job.id);
  if (!fits(job, wanted)) return at < 0 ? jobs : jobs.filter(({ id }) => id !== job.id);
  if (at >= 0) return jobs.with(at, job);
  // The prompt that was searched for may be a later one, which the summary does not have.
  if (wanted.cursor || wanted.q || (jobs[0] && job.submitted_at <= jobs[0].submitted_at)) return jobs;
  return [job, ...jobs].slice(0, wanted.limit);
}

function fits(/** @type {Job} */ job, /** @type {Wanted} */ { status, model }) {
  const right = !status || (status === "ended" ? job.status !== "running" : job.status === status);
  return right && (!model || job.model === model);
}

/** @param {{jobs: Job[], caption: string}} props */
export const JobTable = ({ jobs, caption }) => html`<div class="table-wrap"><table class="folding jobs" data-testid="jobs">
  <caption class="visually-hidden">${caption}</caption>
  <thead><tr><th scope="col">Job</th><th scope="col">Status</th><th scope="col">Progress</th><th scope="col">Left</th><th scope="col">Picture</th><th scope="col">Submitted</th></tr></thead>
  <tbody>${jobs.map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</tbody>
</table></div>`;

const JobRow = ({ job }) => html`<tr data-status=${job.status}>
  <th scope="row"><${JobName} job=${job} /></th>
  <td data-label="Status"><${JobBadge} job=${job} />${job.waiting_for && html`<small class="quiet" title=${job.waiting_for}>${job.queue_position == null ? "for you" : `place ${job.queue_position}`}</small>`}</td>
  <td data-label="Progress" class="progress-cell"><${Bar} value=${job.progress} status=${job.status} label=${`Progress of ${job.id}`} />
    <small class="quiet figure">${share(job.progress)} · ${count(job.segments.done)} of ${count(job.segments.total)}</small></td>
  <td data-label="Left" class="figure nowrap">${job.status !== "running" ? html`<span class="quiet">—</span>` : job.eta_s == null ? html`<span class="unknown">unknown</span>` : about(job.eta_s)}</td>
  <td data-label="Picture" class="nowrap">${job.width} × ${job.height} <small class="quiet">${job.model}, ${words(job.mode)}</small></td>
  <td data-label="Submitted" class="nowrap quiet"><time title=${momentExactly(job.submitted_at)}>${moment(job.submitted_at)}</time>${job.submitted_by && html` <small>by ${job.submitted_by}</small>`}</td>
</tr>`;

/** What it starts from, its prompt and its id. */
export const JobName = ({ job }) => html`<a class="job-name" href=${`/jobs/${job.id}`}>
  <img src=${address(`/jobs/${job.id}/input?index=0`)} onError=${hide} alt="" width="56" height="40" loading="lazy" decoding="async" />
  <span><span class="job-prompt">${job.prompt || "Without a prompt"}</span><span class="mono small-text quiet">${job.id}</span></span></a>`;
