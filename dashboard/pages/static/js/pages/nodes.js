// Machines and their workers: what each holds and does, how warm it is, why it idles.
import { call, get, post, remove } from "../api.js";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { Icon } from "../icons.js";
import { bytes, count, plural } from "../format.js";
import { useNow } from "../job/timeline.js";
import { follow } from "../live.js";
import { WorkerCard } from "../nodes/worker.js";
import { Button, Card, Command, Confirm, Empty, ErrorNote, Facts, Select } from "../parts.js";
import { start, useScope } from "../shell.js";
import { throttled } from "../throttle.js";

const PAINT_MS = 150;
// Machines fetched at a time, and painted until somebody asks for more.
const PAGE = 200, PAINTED = 60;
const STATUSES = /** @type {[string, string][]} */ ([["", "All"], ["busy", "Busy"], ["idle", "Idle"], ["draining", "Draining"], ["drained", "Drained"], ["starting", "Starting"]]);

const BY_NAME = new Intl.Collator("en", { numeric: true });

/** @typedef {Record<string, any>} Worker a WorkerSummary */

const Nodes = () => {
  const [workers, error, reload] = useWorkers();
  const [search, setSearch] = useState("");
  const [status, setStatus] = useState("");
  const admin = useScope("admin") === true;
  const now = useNow(Boolean(workers?.some((w) => w.status === "busy")));
  const all = workers ?? [];
  const shown = all.filter((w) => (!status || w.status === status) && matches(w, search));
  const [most, setMost] = useState(PAINTED);
  const nodes = useMemo(() => [...Map.groupBy(shown, (w) => w.node)].sort(([a], [b]) => BY_NAME.compare(a, b)), [shown]);
  const whole = useMemo(() => Map.groupBy(all, (w) => w.node), [all]);
  return html`<div class="page-head"><h1>Nodes</h1>
      ${all.length > 0 && html`<div class="row">
        <input type="search" class="search" aria-label="Find a worker" placeholder="worker, device, model" value=${search} onInput=${(/** @type {any} */ e) => setSearch(e.target.value)} />
        <${Select} label="Show" value=${status} options=${STATUSES} onChange=${setStatus} /></div>`}</div>
    <${ErrorNote} error=${error} />
    ${workers === null ? html`<p class="quiet">Loading…</p>` : all.length === 0
      ? html`<${Empty} title="No worker is here. Run this on a machine with a card:"><${JoinCommand} may=${admin} open /></${Empty}>`
      : html`<${Totals} workers=${all} />
        <div class="nodes">${nodes.slice(0, most).map(([name, own]) => html`<${Node} key=${name} name=${name} workers=${own} all=${whole.get(name)} admin=${admin} now=${now} reload=${reload} />`)}</div>
        ${nodes.length > most && html`<div><${Button} onPress=${() => setMost(most + PAINTED)} testid="more-nodes">Show more of ${count(nodes.length)} machines</${Button}></div>`}
        ${shown.length === 0 && html`<${Empty} title="No worker is like that." />`}
        <${Card} title="Let a machine join"><${JoinCommand} may=${admin} /></${Card}>`}`;
};

function matches(/** @type {Worker} */ worker, /** @type {string} */ search) {
  const text = search.trim().toLowerCase();
  return !text || [worker.id, worker.device_name, worker.warm_model ?? "", worker.address].some((value) => value.toLowerCase().includes(text));
}

/** Every worker, as the stream tells of it. @returns {[Worker[] | null, any, () => void]} */
function useWorkers() {
  const [workers, setWorkers] = useState(/** @type {Worker[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const reload = useRef(() => {});
  useEffect(() => {
    let end = () => {};
    /** @type {number | undefined} */
    let timer;
    /** @type {Map<string, Worker>} */
    let known = new Map();
    // Sixty-four workers tell of themselves each at its own time; the page is painted for all of them at once.
    const paint = throttled(() => setWorkers([...known.values()]), PAINT_MS);
    const load = async () => {
      clearTimeout(timer);
      try {
        let page = await get(`/nodes?limit=${PAGE}`);
        const since = page.last_event_id ?? 0;
        const found = [...page.data];
        while (page.next_cursor) {
          page = await get(`/nodes?limit=${PAGE}&cursor=${page.next_cursor}`);
          found.push(...page.data);
        }
        known = new Map(found.flatMap((/** @type {any} */ node) => node.workers).map((/** @type {Worker} */ w) => [w.id, w]));
        setWorkers([...known.values()]);
        setError(null);
        end();
        end = follow(since, take, load);
      } catch (problem) {
        setError(problem);
        timer = window.setTimeout(load, 2000);
      }
    };
    const take = (/** @type {import("../live.js").LiveEvent} */ { type, data }) => {
      if (type === "worker") known.set(data.id, data);
      else if (type === "worker_gone") known.delete(data.id);
      else return;
      paint();
    };
    reload.current = load;
    load();
    return () => {
      end();
      paint.cancel();
      clearTimeout(timer);
    };
  }, []);
  return [workers, error, () => reload.current()];
}

const Totals = ({ workers }) => {
  const sum = (/** @type {string} */ name) => workers.reduce((/** @type {number | null} */ total, /** @type {Worker} */ w) => (total === null || w[name] == null ? null : total + w[name]), 0);
  const busy = workers.filter((/** @type {Worker} */ w) => w.status === "busy").length;
  const cards = workers.filter((/** @type {Worker} */ w) => w.kind === "cuda");
  const power = sum("power_w");
  return html`<section class="card" aria-label="Totals"><${Facts} rows=${[
    ["Workers", `${count(workers.length)}, ${count(busy)} busy`],
    ["Machines", count(new Set(workers.map((/** @type {Worker} */ w) => w.node)).size)],
    ["Cards", count(cards.length)],
    ["Memory for tasks", bytes(sum("vram_bytes"))],
    ["Power", power === null ? "unknown" : `${count(Math.round(power))} W`],
    ["Price of an hour", sum("price_per_hour") === null ? "unknown" : sum("price_per_hour").toFixed(2)],
  ]} /></section>`;
};

const Node = ({ name, workers, all, admin, now, reload }) => {
  const [asking, setAsking] = useState(/** @type {"" | "drain" | "remove"} */ (""));
  const [error, setError] = useState(/** @type {any} */ (null));
  const off = all.every((/** @type {Worker} */ w) => w.status === "draining" || w.status === "drained");
  const change = async (/** @type {string} */ verb) => {
    try {
      await post(`/nodes/${encodeURIComponent(name)}/${verb}`);
      setError(null);
      reload();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<section class=${all.length > 1 ? "node several" : "node"} aria-label=${`Node ${name}`} data-testid="node">
    <header class="row node-head"><h2>${name}</h2><span class="quiet small-text">${all[0].address}${all[0].address && " · "}${plural(all.length, "worker")}</span>
      ${admin && html`<span class="push row">${all.length > 1 && (off
        ? html`<${Button} kind="small" onPress=${() => change("enable")}>Enable all of ${name}</${Button}>`
        : html`<button type="button" class="button small" onClick=${() => setAsking("drain")}>Drain all of ${name}</button>`)}
        ${all[0].joined && html`<button type="button" class="button small" onClick=${() => setAsking("remove")} data-testid="remove-node">Remove ${name}</button>`}</span>`}</header>
    <${ErrorNote} error=${error} />
    <div class="workers">${workers.map((/** @type {Worker} */ worker) => html`<${WorkerCard} key=${worker.id} worker=${worker} admin=${admin} now=${now} reload=${reload} />`)}</div>
    ${asking === "remove" && html`<${Confirm} title=${`Remove ${name}?`} action="Remove" onClose=${() => setAsking("")}
      onConfirm=${async () => { await remove(`/nodes/${encodeURIComponent(name)}`); reload(); }}>
      <p>For a machine that is not to be trusted any more. It goes at once, its keys are revoked, and Ray starts again with another token; the other machines come back by themselves, and jobs go on.</p></${Confirm}>`}
    ${asking === "drain" && html`<${Confirm} title=${`Drain ${name}?`} action="Drain" kind="primary" onClose=${() => setAsking("")}
      onConfirm=${async () => { await post(`/nodes/${encodeURIComponent(name)}/drain`); reload(); }}>
      <p>Its ${plural(all.length, "worker")} finish what they have, then end and free their memory. Enable brings them back.</p></${Confirm}>`}
  </section>`;
};

/** The line that brings a machine here; its token is made when it is asked for. */
const JoinCommand = ({ may, open = false }) => {
  const [made, setMade] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const make = () => call("/join-tokens", { method: "POST" }).then((answer) => { setMade(answer); setError(null); }, setError);
  if (!may) return html`<p class="quiet">A key of an admin makes the join command, and so does <code>farm join-token</code> on this farm's machine.</p>`;
  return html`<div class="stack join"><${ErrorNote} error=${error} />
    ${made ? html`<${Command} text=${made.command ?? made.token} label="Join command" /><p class="quiet small-text">For one machine, within a day.</p>`
      : html`<p class="quiet">${open ? "The command has a token in it that lets one machine in, within a day." : "Run one command on a machine with a card, and its workers appear here."}</p>
        <div><${Button} kind=${open ? "primary" : ""} onPress=${make} testid="join-command"><${Icon} name="add" />Make the join command</${Button}></div>`}</div>`;
};

start(Nodes);
