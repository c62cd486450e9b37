// Logging in with a key.
import { post } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { ErrorNote } from "../parts.js";
import { session, start } from "../shell.js";

const Login = () => {
  const [key, setKey] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    const linked = new URLSearchParams(location.hash.slice(1)).get("key");
    // Not to be seen in the address bar, nor kept in the browser's history.
    if (linked) history.replaceState(null, "", location.pathname + location.search);
    const comeIn = linked ? enter(linked) : Promise.resolve();
    comeIn.then(session).then(({ principal }) => {
      if (principal) location.replace(next());
    }, () => {});
  }, []);
  const enter = async (/** @type {string} */ key) => {
    try {
      await post("/session", { key }, { stay: true });
      location.replace(next());
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<form class="card login-card" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); enter(key); }}>
    <svg class="login-mark" viewBox="0 0 28 20" aria-hidden="true"><rect x="1" y="3" width="15" height="14" rx="2.5" /><rect x="12" y="3" width="15" height="14" rx="2.5" /><rect class="overlap" x="12" y="3" width="4" height="14" /></svg>
    <h1>Log in to Reelfarm</h1>
    <div class="field"><label for="key">Key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" autofocus required value=${key} aria-invalid=${error ? true : undefined} aria-describedby="key-hint"
        onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />
      <p class="hint" id="key-hint">A key that starts with <code>rf_</code>; an admin makes them in Settings. On the farm's machine <code>farm login</code> prints a link that needs none.</p></div>
    <${ErrorNote} error=${error} />
    <button type="submit" class="button primary large" disabled=${!key}>Log in</button>
  </form>`;
};

/** Where to go afterwards: a page of this farm and nothing else. */
function next() {
  const wanted = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.origin);
  // The whole address: a path such as //elsewhere would lead there.
  return wanted.origin === location.origin ? wanted.href : "/";
}

start(Login);
