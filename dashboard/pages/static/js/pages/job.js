// One job: how far it is, what it looks like, who did what, how the joins are.
import { address } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { about, cost, count, duration, fps, length, moment, momentExactly, share, words } from "../format.js";
import { JobActions, RenderAgain } from "../job/actions.js";
import { useJob } from "../job/model.js";
import { Landed, Player } from "../job/player.js";
import { Downloads, Report } from "../job/report.js";
import { Review } from "../job/review.js";
import { Seams } from "../job/seams.js";
import { SegmentDialog, SegmentTable } from "../job/segments.js";
import { Timeline, useNow } from "../job/timeline.js";
import { Bar, Card, Empty, ErrorNote, Facts, JobBadge, hide } from "../parts.js";
import { start, useScope } from "../shell.js";

const JOB_ID = decodeURIComponent(location.pathname.split("/").at(-1) ?? "");

const JobPage = () => {
  const { job, model, version, error } = useJob(JOB_ID);
  const [picked, setPicked] = useState(-1);
  const [range, setRange] = useState(/** @type {{start: number, end: number} | null} */ (null));
  const now = useNow(job?.status === "running");
  const mayChange = useScope("submit") !== false;
  useEffect(() => {
    if (job) document.title = `${job.status === "running" ? `${share(job.progress)} · ` : ""}${job.prompt || job.id} · Reelfarm`;
  }, [job]);
  if (error?.status === 404) {
    return html`<h1>Job</h1><${Empty} title=${error.message}><a class="button" href="/jobs">All jobs</a></${Empty}>`;
  }
  if (!job || !model) return html`<h1>Job</h1>${error ? html`<${ErrorNote} error=${error} />` : html`<p class="quiet">Loading…</p>`}`;
  const shared = { job, model, version, now, onPick: setPicked };
  return html`
    <div class="page-head job-head">
      <div><p class="crumb"><a href="/jobs">Jobs</a> <span class="mono">${job.id}</span></p><h1>${job.prompt || "Without a prompt"}</h1></div>
      ${mayChange && html`<div class="row"><${JobActions} job=${job} onRender=${() => setRange({ start: 0, end: job.rendered_frames })} /></div>`}
    </div>
    <${Progress} job=${job} now=${now} />
    ${job.status === "running" && (job.review === "waiting" || job.review === "rendering") && html`<${Review} job=${job} version=${version} mayChange=${mayChange} />`}
    <div class="job-top">
      <section class="card" aria-label="Video"><${Player} ...${shared} /></section>
      <div class="stack">
        <${Card} title="Landed last"><${Landed} ...${shared} /></${Card}>
        <${Downloads} job=${job} />
      </div>
    </div>
    <${Timeline} ...${shared} />
    <${Seams} ...${shared} />
    <${SegmentTable} ...${shared} />
    <${Report} job=${job} />
    ${picked >= 0 && html`<${SegmentDialog} job=${job} model=${model} segment=${picked} mayChange=${mayChange} onPick=${setPicked} onClose=${() => setPicked(-1)}
      onRender=${(/** @type {number} */ first, /** @type {number} */ end) => { setPicked(-1); setRange({ start: first, end }); }} />`}
    ${range && html`<${RenderAgain} job=${job} range=${range} onClose=${() => setRange(null)} />`}`;
};

const Progress = ({ job, now }) => {
  const running = job.status === "running";
  const { total, done, running: at_work } = job.segments;
  const took = (job.finished_at ?? now) - job.submitted_at;
  return html`<section class="card progress-card" aria-label="Progress">
    <div class="progress-head">
      <${JobBadge} job=${job} />
      <strong class="figure" data-testid="progress">${share(job.progress)}</strong>
      <span class="quiet figure">${count(done)} of ${count(total)} segments${at_work > 0 && `, ${count(at_work)} running`}</span>
      ${running && html`<span class="push figure" data-testid="eta">${job.eta_s != null ? `about ${about(job.eta_s)} left` : job.review === "waiting" ? "waits for you" : job.review === "rendering" ? "keyframes first, then it waits for you" : html`<span class="unknown">time left unknown</span>`}</span>`}
    </div>
    <div class="tall"><${Bar} value=${job.progress} status=${job.status} label="Progress of the job" /></div>
    <p class="visually-hidden" role="status">${`This job is ${job.waiting_for ? "waiting" : job.status}`}</p>
    ${job.reason && html`<p class="note bad">${job.reason}</p>`}
    ${job.waiting_for && html`<p class="note" data-testid="waiting">${job.queue_position == null ? "Its keyframes wait for you: look at them, then let the video be rendered." : `Waiting, place ${job.queue_position} in the queue: ${job.waiting_for}`}</p>`}
    ${running && done === total && html`<p class="note">The segments are being joined</p>`}
    <div class="job-facts"><img src=${address(`/jobs/${job.id}/input?index=0`)} onError=${hide} alt="What it starts from" width=${job.width} height=${job.height} />
    <${Facts} rows=${[
      [running ? "Running for" : "Took", duration(Math.max(took, 0))],
      ["Video", length(job.num_frames, job.fps)],
      ["Picture", `${job.width} × ${job.height}, ${fps(job.fps)}`],
      ["Model", job.model],
      ["Mode", words(job.mode)],
      ["Cost", cost(job.cost)],
      ...(job.priority === 50 ? [] : [["Priority", count(job.priority)]]),
      ["Submitted", html`<time title=${momentExactly(job.submitted_at)}>${moment(job.submitted_at)}</time>${job.submitted_by && html` <span class="quiet">by ${job.submitted_by}</span>`}`],
      ...(job.remixed_from ? [["Remixed from", html`<a href=${`/jobs/${job.remixed_from}`}>${job.remixed_from}</a>`]] : []),
      ...(job.refused_results ? [["Results refused", count(job.refused_results)]] : []),
    ]} /></div>
  </section>`;
};

start(JobPage);
