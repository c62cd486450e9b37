// Logging in with a key.
import { post } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { ErrorNote } from "../parts.js";
import { session, start } from "../shell.js";

const Login = () => {
  const [key, setKey] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    session().then(({ needs_login, principal }) => {
      if (!needs_login || principal) location.replace(next());
    }, () => {});
  }, []);
  const enter = async () => {
    try {
      await post("/session", { key }, { stay: true });
      location.replace(next());
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<form class="card login-card" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); enter(); }}>
    <svg class="login-mark" viewBox="0 0 28 20" aria-hidden="true"><rect x="1" y="3" width="15" height="14" rx="2.5" /><rect x="12" y="3" width="15" height="14" rx="2.5" /><rect class="overlap" x="12" y="3" width="4" height="14" /></svg>
    <h1>Log in to Reelfarm</h1>
    <div class="field"><label for="key">Key</label>
      <input id="key" name="key" type="password" autocomplete="current-password" autofocus required value=${key} aria-invalid=${error ? true : undefined} aria-describedby="key-hint"
        onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />
      <p class="hint" id="key-hint">The farm's access token, or a key that starts with <code>rf_</code>. An admin makes keys in Settings.</p></div>
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
