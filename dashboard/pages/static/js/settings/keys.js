// Keys of people and programs.
import { get, post, remove } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { Icon } from "../icons.js";
import { moment, momentExactly } from "../format.js";
import { Badge, Button, Card, Command, Confirm, Dialog, Empty, ErrorNote } from "../parts.js";

const DAY_S = 86400;
const SCOPES = /** @type {[string, string][]} */ ([
  ["read", "see jobs, nodes and figures"], ["submit", "and make, change and delete jobs"], ["node", "let machines join"], ["admin", "everything, keys too"],
]);
const EXPIRIES = /** @type {[string, number | null][]} */ ([["in 30 days", 30 * DAY_S], ["in 90 days", 90 * DAY_S], ["in a year", 365 * DAY_S], ["never", null]]);

export const Keys = () => {
  const [keys, setKeys] = useState(/** @type {any[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [dialog, setDialog] = useState(/** @type {any} */ (null));
  const load = () => get("/keys").then(({ data }) => { setKeys(data); setError(null); }, setError);
  useEffect(() => { load(); }, []);
  const now = Date.now() / 1000;
  return html`<${Card} title="Keys" id="keys" actions=${html`<button type="button" class="button small" data-testid="new-key" onClick=${() => setDialog({ make: true })}><${Icon} name="add" />New key</button>`}>
    <${ErrorNote} error=${error} />
    ${keys?.length === 0 && html`<${Empty} title="No key has been made yet."><p>The owner's token is in the farm's state folder; a program or a person gets a key of its own.</p></${Empty}>`}
    ${keys && keys.length > 0 && html`<div class="table-wrap"><table class="folding" data-testid="keys"><caption class="visually-hidden">Keys, the newest first</caption>
      <thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">May</th><th scope="col">Made</th><th scope="col">Last used</th><th scope="col">Expires</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${keys.map((key) => html`<tr key=${key.id}><th scope="row">${key.name}<br /><small class="mono quiet">rf_${key.id}_…</small></th>
        <td data-label="State"><${KeyState} of=${key} now=${now} /></td><td data-label="May">${key.scopes.join(", ")}</td>
        <td data-label="Made" class="quiet nowrap">${moment(key.created_at)}</td>
        <td data-label="Last used" class="quiet nowrap">${key.last_used_at == null ? "never" : moment(key.last_used_at)}</td>
        <td data-label="Expires" class="quiet nowrap"><time title=${key.expires_at == null ? undefined : momentExactly(key.expires_at)}>${key.expires_at == null ? "never" : moment(key.expires_at)}</time></td>
        <td class="end">${key.revoked_at == null && html`<button type="button" class="button small danger" aria-label=${`Revoke ${key.name}`} onClick=${() => setDialog({ revoke: key })}>Revoke</button>`}</td></tr>`)}</tbody></table></div>`}
    ${dialog?.make && html`<${NewKey} onClose=${() => setDialog(null)} onMade=${load} />`}
    ${dialog?.revoke && html`<${Confirm} title=${`Revoke ${dialog.revoke.name}?`} action="Revoke" onClose=${() => setDialog(null)} onConfirm=${() => remove(`/keys/${dialog.revoke.id}`).then(load)}>
      <p>It ends at once, with all its sessions. This cannot be taken back.</p></${Confirm}>`}
  </${Card}>`;
};

const KeyState = ({ of, now }) => of.revoked_at != null ? html`<${Badge} status="cancelled">revoked</${Badge}>`
  : of.expires_at != null && of.expires_at < now ? html`<${Badge} status="cancelled">expired</${Badge}>` : html`<${Badge} status="passed">works</${Badge}>`;

const NewKey = ({ onClose, onMade }) => {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["submit"]);
  const [expiry, setExpiry] = useState("0");
  const [made, setMade] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const make = async () => {
    try {
      setMade(await post("/keys", { name, scopes, expires_in_s: EXPIRIES[Number(expiry)][1] }));
      onMade();
    } catch (problem) {
      setError(problem);
    }
  };
  if (made) {
    return html`<${Dialog} title=${`Key ${made.name}`} onClose=${onClose}><p>This is the only time it is shown. Copy it now.</p>
      <${Command} text=${made.key} label="The key" /><div class="row end"><button type="button" class="button primary" onClick=${onClose}>I have it</button></div></${Dialog}>`;
  }
  const toggle = (/** @type {string} */ scope) => setScopes(scopes.includes(scope) ? scopes.filter((s) => s !== scope) : [...scopes, scope]);
  return html`<${Dialog} title="New key" onClose=${onClose}>
    <label class="field"><span>Name</span><input autofocus value=${name} maxlength="100" placeholder="night renders" autocomplete="off" onInput=${(/** @type {any} */ e) => setName(e.target.value)} /></label>
    <fieldset><legend class="legend">It may</legend>${SCOPES.map(([scope, words]) => html`<label key=${scope} class="choice"><input type="checkbox" checked=${scopes.includes(scope)} onChange=${() => toggle(scope)} />
      <span>${scope}<small>${words}</small></span></label>`)}</fieldset>
    <label class="field"><span>Expires</span><select value=${expiry} onChange=${(/** @type {any} */ e) => setExpiry(e.target.value)}>${EXPIRIES.map(([words], i) => html`<option key=${words} value=${i}>${words}</option>`)}</select></label>
    <${ErrorNote} error=${error} />
    <div class="row end"><button type="button" class="button" onClick=${onClose}>Close</button><${Button} kind="primary" disabled=${!name.trim() || !scopes.length} onPress=${make} testid="make-key">Make the key</${Button}></div>
  </${Dialog}>`;
};
