// What an admin sets: keys, webhooks; and what was done.
import { get } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { bytes, momentExactly, plural } from "../format.js";
import { follow } from "../live.js";
import { Button, Card, Empty, ErrorNote, Facts, Pager } from "../parts.js";
import { Keys } from "../settings/keys.js";
import { Webhooks } from "../settings/webhooks.js";
import { session, start } from "../shell.js";

const AUDIT_LIMIT = 500;
const PAGE = 20;

const Settings = () => {
  const [who, setWho] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    session().then(setWho, setError);
    return follow(null, () => {}, () => {}); // nothing here is live, but whether the farm is heard is seen
  }, []);
  const admin = who?.scopes.includes("admin");
  return html`<div class="page-head"><h1>Settings</h1></div>
    <${ErrorNote} error=${error} />
    ${who && html`<${You} who=${who} />`}
    ${who?.scopes.includes("read") && html`<${Stored} />`}
    ${admin && html`<${Keys} /><${Webhooks} /><${Audit} />`}
    ${who && !admin && html`<${Empty} title="Keys, webhooks and the audit log are for admins."><p>Log in with a key that has the scope admin.</p></${Empty}>`}`;
};

const You = ({ who }) => html`<${Card} title="You"><${Facts} rows=${[
  ["Name", who.principal?.name ?? "unknown"],
  ["May", who.scopes.join(", ") || "nothing"],
]} /></${Card}>`;

const Stored = () => {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => { get("/storage").then(setFound, setError); }, []);
  const amount = (/** @type {any} */ a) => `${plural(a.files, "file")}, ${bytes(a.size_bytes)}`;
  return html`<${Card} title="Storage" id="storage"><${ErrorNote} error=${error} />${found && html`<${Facts} rows=${[
    ["Inputs and results", amount(found.used)],
    ["Videos and logs", amount(found.published)],
    ["Not in the journal", found.unknown.files ? html`${amount(found.unknown)}; kept until <code>farm storage --remove-unknown</code>` : "nothing"],
    ["Missing", found.missing_files ? `${plural(found.missing_files, "file")}, rendered again when wanted` : "nothing"],
    ["Free on that disk", bytes(found.free_bytes)],
  ]} />`}</${Card}>`;
};

const Audit = () => {
  const [entries, setEntries] = useState(/** @type {any[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [search, setSearch] = useState("");
  const [page, setPage] = useState(0);
  const load = () => get(`/audit?limit=${AUDIT_LIMIT}`).then(({ data }) => { setEntries(data); setError(null); }, setError);
  useEffect(() => { load(); }, []);
  const text = search.trim().toLowerCase();
  const found = (entries ?? []).filter((entry) => !text || [entry.name, entry.principal, entry.address, entry.method, entry.path, entry.subject, String(entry.status)].some((value) => value?.toLowerCase().includes(text)));
  const pages = Math.max(Math.ceil(found.length / PAGE), 1);
  return html`<${Card} title="Audit log" id="audit" actions=${html`<input type="search" class="search" aria-label="Find in the audit log" placeholder="who, address, path" value=${search} onInput=${(/** @type {any} */ e) => { setSearch(e.target.value); setPage(0); }} />
      <${Button} kind="small" onPress=${load}>Read again</${Button}>`}>
    <${ErrorNote} error=${error} />
    ${entries && found.length === 0 ? html`<${Empty} title=${text ? "No entry is like that." : "Nothing has been changed yet."} />` : html`<div class="table-wrap"><table class="folding" data-testid="audit">
      <caption class="visually-hidden">Requests that changed something, came in or were refused; the newest first</caption>
      <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">From</th><th scope="col">Did</th><th scope="col" class="number">Answer</th></tr></thead>
      <tbody>${found.slice(page * PAGE, (page + 1) * PAGE).map((entry, i) => html`<tr key=${`${entry.at}${i}`}>
        <td data-label="When" class="nowrap quiet">${momentExactly(entry.at)}</td><td data-label="Who">${entry.name ?? entry.principal ?? "nobody known"}</td><td data-label="From" class="mono small-text">${entry.address}</td>
        <td data-label="Did" class="anywhere"><span class="mono small-text">${entry.method} ${entry.path}</span>${entry.subject && html` <small class="quiet">${entry.subject}</small>`}</td>
        <td data-label="Answer" class="number">${entry.status == null ? "none" : entry.status >= 400 ? html`<span class="bad-text">${entry.status}</span>` : entry.status}</td></tr>`)}</tbody></table></div>
    <${Pager} page=${page} pages=${pages} onPage=${setPage} label="Pages of the audit log" />`}
  </${Card}>`;
};

start(Settings);
