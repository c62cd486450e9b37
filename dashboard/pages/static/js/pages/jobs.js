// All jobs, live, with filters that stand in the address.
import { get } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Icon } from "../icons.js";
import { JobTable, useJobs } from "../job/list.js";
import { Empty, ErrorNote, Select } from "../parts.js";
import { start } from "../shell.js";

const LIMIT = 50;
const SEARCH_MS = 250;
const STATUSES = /** @type {[string, string][]} */ ([["", "All"], ["running", "Running"], ["succeeded", "Succeeded"], ["failed", "Failed"], ["cancelled", "Cancelled"]]);

const Jobs = () => {
  const [filter, setFilter] = useState(filterOfAddress);
  const [typed, setTyped] = useState(filter.q);
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const models = useModels();
  const { jobs, next, error } = useJobs({ ...filter, cursor: cursors.at(-1) ?? "", limit: LIMIT });
  const change = (/** @type {Partial<typeof filter>} */ part) => {
    setFilter((before) => ({ ...before, ...part }));
    setCursors([]);
  };
  useEffect(() => {
    const timer = setTimeout(() => typed !== filter.q && change({ q: typed }), SEARCH_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  useEffect(() => {
    const given = Object.entries(filter).filter(([, value]) => value);
    history.replaceState(null, "", given.length ? `?${new URLSearchParams(given)}` : location.pathname);
  }, [filter]);
  const filtered = filter.status || filter.model || filter.q;
  return html`<div class="page-head"><h1>Jobs</h1><a class="button primary push" href="/"><${Icon} name="add" />New video</a></div>
    <section class="card" aria-label="Jobs">
      <div class="filters">
        <div class="chips" role="radiogroup" aria-label="Status">${STATUSES.map(([value, words]) => html`<label key=${value}>
          <input type="radio" name="status" value=${value} checked=${filter.status === value} onChange=${() => change({ status: value })} />${words}</label>`)}</div>
        <div class="row push"><input type="search" class="search" aria-label="Find in prompts and ids" placeholder="prompt or id" value=${typed} onInput=${(/** @type {any} */ e) => setTyped(e.target.value)} />
          <${Select} label="Model" value=${filter.model} options=${[["", "All"], ...models.map((name) => [name, name])]} onChange=${(/** @type {string} */ model) => change({ model })} /></div>
      </div>
      <${ErrorNote} error=${error} />
      ${jobs === null ? !error && html`<p class="quiet">Loading…</p>` : jobs.length === 0
        ? html`<${Empty} title=${filtered ? "No job is like that." : "No video has been asked for yet."}>${filtered
          ? html`<button type="button" class="button" onClick=${() => { setTyped(""); change({ status: "", model: "", q: "" }); }}>Show all jobs</button>`
          : html`<a class="button primary" href="/">Make the first one</a>`}</${Empty}>`
        : html`<${JobTable} jobs=${jobs} caption="Jobs, the newest first" />`}
      ${(next || cursors.length > 0) && html`<nav class="pager row" aria-label="Pages of jobs">
        <button type="button" class="button small" disabled=${cursors.length === 0} onClick=${() => setCursors(cursors.slice(0, -1))}><${Icon} name="previous" />Newer</button>
        <span class="quiet">Page ${cursors.length + 1}</span>
        <button type="button" class="button small" disabled=${!next} onClick=${() => next && setCursors([...cursors, next])}>Older<${Icon} name="next" /></button></nav>`}
    </section>`;
};

function filterOfAddress() {
  const given = new URLSearchParams(location.search);
  const status = given.get("status") ?? "";
  return { status: STATUSES.some(([value]) => value === status) ? status : "", model: given.get("model") ?? "", q: given.get("q") ?? "" };
}

/** Names of the models that can be filtered by. */
function useModels() {
  const [models, setModels] = useState(/** @type {string[]} */ ([]));
  useEffect(() => {
    get("/models").then(({ data }) => setModels(data.map((/** @type {any} */ m) => m.model)), () => {});
  }, []);
  return models;
}

start(Jobs);
