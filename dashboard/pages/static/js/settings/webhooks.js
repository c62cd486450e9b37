// Programs that are told of events.
import { get, post, remove } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Icon } from "../icons.js";
import { duration, momentExactly, moment, plural, words } from "../format.js";
import { Badge, Button, Card, Command, Confirm, Dialog, Empty, ErrorNote } from "../parts.js";

const EVENTS = [
  "job_published", "job_failed", "job_cancelled", "job_submitted", "job_prioritized", "job_retried", "job_reopened",
  "keyframes_ready", "keyframes_remade", "keyframe_replaced", "review_approved",
  "job_deleted", "attempt_succeeded", "attempt_failed", "seam_measured", "worker_joined", "worker_left",
  "node_removed", "licence_accepted",
];

export const Webhooks = () => {
  const [hooks, setHooks] = useState(/** @type {any[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [dialog, setDialog] = useState(/** @type {any} */ (null));
  const load = () => get("/webhooks").then(({ data }) => { setHooks(data); setError(null); }, setError);
  useEffect(() => { load(); }, []);
  const close = () => setDialog(null);
  return html`<${Card} title="Webhooks" id="webhooks" actions=${html`<button type="button" class="button small" data-testid="new-webhook" onClick=${() => setDialog({ make: true })}><${Icon} name="add" />New webhook</button>`}>
    <${ErrorNote} error=${error} />
    ${hooks?.length === 0 && html`<${Empty} title="No program is told of events."><p>A webhook posts signed messages to an address, for instance when a video is published.</p></${Empty}>`}
    ${hooks && hooks.length > 0 && html`<div class="table-wrap"><table class="folding"><caption class="visually-hidden">Webhooks</caption>
      <thead><tr><th scope="col">Address</th><th scope="col">State</th><th scope="col">Events</th><th scope="col">Made</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${hooks.map((hook) => html`<tr key=${hook.id}><th scope="row" class="anywhere">${hook.url}${hook.description && html`<br /><small class="quiet">${hook.description}</small>`}</th>
        <td data-label="State"><${HookState} hook=${hook} /></td><td data-label="Events">${hook.events.map(words).join(", ")}</td><td data-label="Made" class="quiet nowrap">${moment(hook.created_at)}</td>
        <td class="end"><div class="row end-row">
          ${(hook.disabled_because || hook.attempts > 0) && html`<${Button} kind="small" onPress=${() => post(`/webhooks/${hook.id}/enable`).then(load, setError)}>${hook.disabled_because ? "Enable" : "Try now"}</${Button}>`}
          <button type="button" class="button small" onClick=${() => setDialog({ deliveries: hook })} aria-label=${`Deliveries to ${hook.url}`}>Deliveries</button>
          <button type="button" class="button small danger" onClick=${() => setDialog({ remove: hook })} aria-label=${`Delete the webhook to ${hook.url}`}>Delete</button></div></td></tr>`)}</tbody></table></div>`}
    ${dialog?.make && html`<${NewWebhook} onClose=${close} onMade=${load} />`}
    ${dialog?.deliveries && html`<${Deliveries} hook=${dialog.deliveries} onClose=${() => { close(); load(); }} />`}
    ${dialog?.remove && html`<${Confirm} title="Delete this webhook?" action="Delete" onClose=${close} onConfirm=${() => remove(`/webhooks/${dialog.remove.id}`).then(load)}><p class="anywhere">Nothing more is sent to ${dialog.remove.url}.</p></${Confirm}>`}
  </${Card}>`;
};

const HookState = ({ hook }) => hook.disabled_because
  ? html`<${Badge} status="failed">off</${Badge}><br /><small class="quiet">${hook.disabled_because}</small>`
  : hook.attempts > 0
    ? html`<${Badge} status="warning">failing</${Badge}><br /><small class="quiet">${plural(hook.attempts, "failure")}, again ${hook.next_at == null ? "soon" : moment(hook.next_at)}</small>`
    : html`<${Badge} status="passed">works</${Badge}>`;

const NewWebhook = ({ onClose, onMade }) => {
  const [url, setUrl] = useState("");
  const [description, setDescription] = useState("");
  const [events, setEvents] = useState(["job_published", "job_failed"]);
  const [made, setMade] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const make = async () => {
    try {
      setMade(await post("/webhooks", { url, events, description }));
      onMade();
    } catch (problem) {
      setError(problem);
    }
  };
  if (made) {
    return html`<${Dialog} title="Webhook made" onClose=${onClose}><p>Receivers verify messages with this secret. This is the only time it is shown.</p>
      <${Command} text=${made.secret} label="The secret" /><div class="row end"><button type="button" class="button primary" onClick=${onClose}>I have it</button></div></${Dialog}>`;
  }
  const toggle = (/** @type {string} */ name) => setEvents(events.includes(name) ? events.filter((e) => e !== name) : [...events, name]);
  return html`<${Dialog} title="New webhook" onClose=${onClose}>
    <label class="field"><span>Address</span><input type="url" autofocus value=${url} placeholder="https://studio.example/reelfarm" autocomplete="off" aria-invalid=${error?.param === "url" || undefined} onInput=${(/** @type {any} */ e) => setUrl(e.target.value)} /></label>
    <label class="field"><span>What it is for</span><input value=${description} maxlength="200" autocomplete="off" onInput=${(/** @type {any} */ e) => setDescription(e.target.value)} /></label>
    <fieldset><legend class="legend">Events</legend><div class="event-grid">${EVENTS.map((name) => html`<label key=${name} class="choice"><input type="checkbox" checked=${events.includes(name)} onChange=${() => toggle(name)} /><span>${words(name)}</span></label>`)}</div></fieldset>
    <${ErrorNote} error=${error} />
    <div class="row end"><button type="button" class="button" onClick=${onClose}>Close</button><${Button} kind="primary" disabled=${!url || !events.length} onPress=${make} testid="make-webhook">Make the webhook</${Button}></div>
  </${Dialog}>`;
};

const Deliveries = ({ hook, onClose }) => {
  const [list, setList] = useState(/** @type {any[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const load = () => get(`/webhooks/${hook.id}/deliveries`).then(({ data }) => { setList(data); setError(null); }, setError);
  useEffect(() => { load(); }, []);
  return html`<${Dialog} title="Deliveries" onClose=${onClose} wide><p class="quiet anywhere">${hook.url}</p>
    <${ErrorNote} error=${error} />
    ${list?.length === 0 && html`<p class="quiet">Nothing has been sent yet.</p>`}
    ${list && list.length > 0 && html`<div class="table-wrap"><table class="folding"><caption class="visually-hidden">Deliveries, the newest first</caption>
      <thead><tr><th scope="col">Sent</th><th scope="col">Event</th><th scope="col">Answer</th><th scope="col" class="number">Attempt</th><th scope="col" class="number">Took</th></tr></thead>
      <tbody>${list.map((one) => html`<tr key=${one.message_id + one.attempt + one.at}><td data-label="Sent">${momentExactly(one.at)}</td><td data-label="Event">${words(one.type)}</td>
        <td data-label="Answer">${one.error ? html`<span class="bad-text">${one.status ?? "none"}</span> <small class="quiet">${one.error}</small>` : one.status}</td>
        <td data-label="Attempt" class="number">${one.attempt}</td><td data-label="Took" class="number">${duration(one.duration_s)}</td></tr>`)}</tbody></table></div>`}
    <div class="row end"><${Button} onPress=${() => post(`/webhooks/${hook.id}/test`).then(load, setError)}>Send a test</${Button}></div></${Dialog}>`;
};
