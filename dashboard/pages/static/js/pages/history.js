// Jobs that have ended: how long they took, what they cost, and all of them together.
import { html, useMemo, useState } from "../html.js";
import { cost, count, duration, moment, momentExactly, plural, share } from "../format.js";
import { JobName, useJobs } from "../job/list.js";
import { Badge, Card, Empty, ErrorNote, Facts, Figure, Pager } from "../parts.js";
import { start } from "../shell.js";

const LIMIT = 200;
const PAGE = 25;

const History = () => {
  const [page, setPage] = useState(0);
  const { jobs, next, error } = useJobs({ status: "ended", model: "", q: "", cursor: "", limit: LIMIT });
  const pages = Math.ceil((jobs?.length ?? 0) / PAGE);
  const shown = jobs?.slice(Math.min(page, Math.max(pages - 1, 0)) * PAGE).slice(0, PAGE) ?? [];
  return html`<div class="page-head"><h1>History</h1></div>
    <${ErrorNote} error=${error} />
    ${jobs === null ? !error && html`<p class="quiet">Loading…</p>` : jobs.length === 0
      ? html`<${Empty} title="No job has ended yet."><a class="button" href="/jobs">Jobs that run</a></${Empty}>`
      : html`<${Totals} jobs=${jobs} more=${next !== null} />
      <${Card} title="Ended jobs"><div class="table-wrap"><table class="folding jobs" data-testid="history">
        <caption class="visually-hidden">Jobs that have ended, the newest first</caption>
        <thead><tr><th scope="col">Job</th><th scope="col">Status</th><th scope="col" class="number">Took</th><th scope="col" class="number">Frames</th><th scope="col" class="number">Time a frame</th><th scope="col" class="number">Cost</th><th scope="col" class="number">Seams beyond a gate</th><th scope="col">Ended</th></tr></thead>
        <tbody>${shown.map((job) => html`<tr key=${job.id}>
          <th scope="row"><${JobName} job=${job} /></th>
          <td data-label="Status"><${Badge} status=${job.status} /></td>
          <td data-label="Took" class="number nowrap">${duration(tookOf(job))}</td>
          <td data-label="Frames" class="number">${count(job.num_frames)}</td>
          <td data-label="Time a frame" class="number nowrap">${job.status === "succeeded" ? duration(perFrame(job)) : html`<span class="quiet">—</span>`}</td>
          <td data-label="Cost" class="number"><${Figure} value=${cost(job.cost)} /></td>
          <td data-label="Seams beyond a gate" class="number">${job.seams.measured ? `${count(job.seams.failed)} of ${count(job.seams.measured)}` : html`<span class="quiet">—</span>`}</td>
          <td data-label="Ended" class="nowrap quiet"><time title=${momentExactly(job.finished_at)}>${moment(job.finished_at)}</time></td></tr>`)}</tbody>
      </table></div><${Pager} page=${page} pages=${pages} onPage=${setPage} label="Pages of history" /></${Card}>`}`;
};

const Totals = ({ jobs, more }) => {
  const rows = useMemo(() => {
    const good = jobs.filter((/** @type {any} */ job) => job.status === "succeeded");
    const sum = (/** @type {any[]} */ list, /** @type {(job: any) => number | null} */ of) => list.reduce((total, job) => total + (of(job) ?? 0), 0);
    const unpriced = jobs.filter((/** @type {any} */ job) => job.cost == null).length;
    const measured = sum(jobs, (job) => job.seams.measured);
    return /** @type {[string, string][]} */ ([
      ["Jobs", `${count(jobs.length)}, ${share(good.length / jobs.length)} succeeded`],
      ["Frames of finished videos", count(sum(good, (job) => job.num_frames))],
      ["Video", duration(sum(good, (job) => job.num_frames / job.fps))],
      ["Time of all jobs", duration(sum(jobs, tookOf))],
      ["Cost", unpriced === jobs.length ? "unknown" : `${cost(sum(jobs, (job) => job.cost))}${unpriced ? `, and ${plural(unpriced, "job")} of unknown cost` : ""}`],
      ["Energy", "unknown"],
      ["Seams within their gates", measured ? share(1 - sum(jobs, (job) => job.seams.failed) / measured) : "unknown"],
    ]);
  }, [jobs]);
  return html`<${Card} title=${more ? `The last ${count(jobs.length)} jobs` : "All of them"}><${Facts} rows=${rows} /></${Card}>`;
};

const tookOf = (/** @type {any} */ job) => (job.finished_at == null ? null : job.finished_at - job.submitted_at);
const perFrame = (/** @type {any} */ job) => {
  const took = tookOf(job);
  return took === null ? null : took / job.num_frames;
};

start(History);
