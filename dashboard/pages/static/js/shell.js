// What stands around every page: whether the farm is heard, the theme, who is logged in.
import { get, remove } from "./api.js";
import { html, render, useEffect, useState } from "./html.js";
import { Icon } from "./icons.js";
import { watchStatus } from "./live.js";

const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const THEME_ICONS = /** @type {const} */ ({ system: "system", light: "sun", dark: "moon" });
const STATUS_TEXT = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting…" };

/** @typedef {{principal: {id: string, name: string} | string | null, scopes: string[]}} Session */

/** @type {Promise<Session> | undefined} */
let asked;
/** Who is looking, asked once a page. */
export const session = () => (asked ??= get("/session"));

/** Whether the one looking may do what a scope allows; null while it is not known yet. */
export function useScope(/** @type {string} */ scope) {
  const [allowed, setAllowed] = useState(/** @type {boolean | null} */ (null));
  useEffect(() => {
    session().then(({ scopes }) => setAllowed(scopes.includes(scope) || scopes.includes("admin")), () => setAllowed(true));
  }, [scope]);
  return allowed;
}

/** Put a page's component into the shell, and what stands at the end of its top. */
export function start(/** @type {any} */ Page, /** @type {any} */ End = TopEnd) {
  const page = /** @type {HTMLElement} */ (document.getElementById("page"));
  page.replaceChildren();
  render(html`<${Page} />`, page);
  const end = document.getElementById("top-end");
  if (end) render(html`<${End} />`, end);
}

/** Of a page that follows no farm. */
export const ThemeOnly = () => html`<${ThemeButton} />`;

const TopEnd = () => {
  const [status, setStatus] = useState("connecting");
  const [who, setWho] = useState(/** @type {Session | null} */ (null));
  useEffect(() => watchStatus(setStatus), []);
  useEffect(() => {
    session().then(setWho, () => {});
  }, []);
  return html`<span class="live" role="status" data-status=${status} data-testid="live-status">${STATUS_TEXT[status]}</span>
    <${ThemeButton} />
    ${who && html`<button type="button" class="button small plain" onClick=${logOut}>Log out</button>`}`;
};

async function logOut() {
  await remove("/session", { stay: true });
  location.assign("/login");
}

const ThemeButton = () => {
  const [theme, setTheme] = useState(() => document.documentElement.dataset.theme ?? "system");
  const next = THEMES[(THEMES.indexOf(/** @type {any} */ (theme)) + 1) % THEMES.length];
  const change = () => {
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("reelfarm-theme", next);
    } catch {
      // Kept for this page only.
    }
    setTheme(next);
    window.dispatchEvent(new Event("themechange"));
  };
  const label = `Theme: ${theme}. Change to ${next}`;
  return html`<button type="button" class="button small plain" aria-label=${label} title=${label} onClick=${change}>
    <${Icon} name=${THEME_ICONS[theme]} /></button>`;
};
