// Small parts that every page is made of.
import { html, useEffect, useId, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { watchStatus } from "./live.js";
import { UNKNOWN, share } from "./format.js";

/** A figure; an unknown one is seen as such without being read. */
export const Figure = ({ value, title = undefined }) =>
  html`<span class=${value === UNKNOWN ? "figure unknown" : "figure"} title=${title}>${value}</span>`;

/** Rows of a name and a value. @param {{rows: [string, any][]}} props */
export const Facts = ({ rows }) => html`<dl class="facts">
  ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt>
    <dd>${typeof value === "string" ? html`<${Figure} value=${value} />` : value}</dd></div>`)}
</dl>`;

const STATUS_WORDS = { done: "rendered" };

/** @param {{status: string, children?: any}} props */
export const Badge = ({ status, children }) =>
  html`<span class="badge" data-status=${status}>${children ?? STATUS_WORDS[status] ?? status}</span>`;

/** A job's status, or that it waits. */
export const JobBadge = ({ job }) => html`<${Badge} status=${job.waiting_for ? "waiting" : job.status} />`;

/** @param {{value: number | null, label: string, status?: string}} props value: 0 to 1 */
export const Bar = ({ value, label, status = "running" }) => html`<span
  class="bar" role="progressbar" aria-label=${label} data-status=${status}
  aria-valuemin="0" aria-valuemax="100" aria-valuenow=${value == null ? undefined : Math.round(value * 100)}
  aria-valuetext=${value == null ? UNKNOWN : share(value)}><span style=${{ width: `${(value ?? 0) * 100}%` }}></span></span>`;

export const Card = ({ title, actions = null, children, id = undefined, className = "" }) => {
  const heading = useId();
  return html`<section class=${`card ${className}`} id=${id} aria-labelledby=${heading}>
    <header class="card-head"><h2 id=${heading}>${title}</h2>${actions && html`<div class="row">${actions}</div>`}</header>
    ${children}
  </section>`;
};

export const Empty = ({ title, children = null }) =>
  html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

/** What went wrong, said once to readers of the screen. */
export const ErrorNote = ({ error, children = null }) =>
  error && html`<div class="note bad" role="alert"><${Icon} name="warning" /><div>${error.message}${children}</div></div>`;

/** A video of words alone starts from no picture. */
export const hide = (/** @type {Event} */ event) => { /** @type {HTMLElement} */ (event.currentTarget).style.visibility = "hidden"; };

/**
 * A picture whose address stays when its content changes. `version` 0 is what the browser may have kept.
 * @param {{src: string, version: string | number, missing?: any, [attribute: string]: any}} props
 */
export const Picture = ({ src, version, missing = null, ...rest }) => {
  const [shown, setShown] = useState(version === 0 ? src : "");
  const [failed, setFailed] = useState(false);
  const [attempt, setAttempt] = useState(0);
  // What could not be fetched while the farm was away can be when it is back.
  useEffect(() => {
    if (!failed) return undefined;
    let first = true;
    return watchStatus((status) => {
      if (!first && status === "live") setAttempt((n) => n + 1);
      first = false;
    });
  }, [failed]);
  useEffect(() => {
    setFailed(false);
    if (version === 0) {
      setShown(src);
      return undefined;
    }
    const abort = new AbortController();
    let blob = "";
    fetch(src, { cache: "no-cache", signal: abort.signal }).then(async (answer) => {
      if (!answer.ok) throw new Error(answer.statusText);
      blob = URL.createObjectURL(await answer.blob());
      setShown(blob);
    }).catch(() => setFailed(!abort.signal.aborted));
    return () => {
      abort.abort();
      if (blob) setTimeout(() => URL.revokeObjectURL(blob), 1000); // when the next one is shown
    };
  }, [src, version, attempt]);
  if (failed) return missing;
  return html`<img ...${rest} src=${shown || undefined} onError=${() => setFailed(true)} />`;
};

/** A button that shows that it is at work, and what went wrong.
 * @param {{onPress: () => any, children: any, kind?: string, disabled?: boolean, label?: string, testid?: string}} props */
export const Button = ({ onPress, children, kind = "", disabled = false, label = undefined, testid = undefined }) => {
  const [busy, setBusy] = useState(false);
  const press = async () => {
    setBusy(true);
    try {
      await onPress();
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" class=${`button ${kind}`} disabled=${disabled || busy} aria-busy=${busy}
    aria-label=${label} title=${label} data-testid=${testid} onClick=${press}>${children}</button>`;
};

export const CopyButton = ({ text, label = "Copy" }) => {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await toClipboard(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<${Button} kind="small" onPress=${copy}><${Icon} name=${copied ? "check" : "copy"} />
    <span aria-live="polite">${copied ? "Copied" : label}</span></${Button}>`;
};

async function toClipboard(/** @type {string} */ text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A farm on a home network is served without TLS, where browsers have the old way only.
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A line of shell, or a secret, with a button that copies it. */
export const Command = ({ text, label }) => html`<div class="command">
  <code tabindex="0" role="textbox" aria-readonly="true" aria-label=${label}>${text}</code><${CopyButton} text=${text} />
</div>`;

/**
 * A native modal dialog: Escape closes it, focus stays inside and goes back where it was.
 * @param {{title: string, onClose: () => void, children: any, wide?: boolean}} props
 */
export const Dialog = ({ title, onClose, children, wide = false }) => {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const heading = useId();
  useEffect(() => {
    const [dialog, before] = [ref.current, document.activeElement];
    dialog?.showModal();
    return () => {
      // It is out of the document by now, so the browser does not give the focus back by itself.
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  const onOutside = (/** @type {MouseEvent} */ event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${wide ? "wide" : ""} aria-labelledby=${heading}
      onCancel=${(/** @type {Event} */ event) => { event.preventDefault(); onClose(); }} onMouseDown=${onOutside}>
    <div class="dialog-body">
      <header class="card-head"><h2 id=${heading}>${title}</h2>
        <button type="button" class="button small plain" aria-label="Close" onClick=${onClose}><${Icon} name="cancel" /></button>
      </header>${children}
    </div>
  </dialog>`;
};

/**
 * Asks before something that cannot be taken back.
 * @param {{title: string, action: string, onConfirm: () => Promise<any>, onClose: () => void, children: any, kind?: string}} props
 */
export const Confirm = ({ title, action, onConfirm, onClose, children, kind = "danger" }) => {
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const confirm = async () => {
    try {
      await onConfirm();
      onClose();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    ${children}<${ErrorNote} error=${error} />
    <div class="row end"><button type="button" class="button" onClick=${onClose}>Keep as it is</button>
      <${Button} kind=${kind} onPress=${confirm} testid="confirm">${action}</${Button}></div>
  </${Dialog}>`;
};

/** @param {{label: string, value: string, options: [string, string][], onChange: (value: string) => void}} props */
export const Select = ({ label, value, options, onChange }) => html`<label class="field inline"><span>${label}</span>
  <select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    ${options.map(([key, words]) => html`<option key=${key} value=${key}>${words}</option>`)}
  </select></label>`;

/** Steps through pages that lie in memory. @param {{page: number, pages: number, onPage: (page: number) => void, label: string}} props */
export const Pager = ({ page, pages, onPage, label }) => pages > 1 && html`<nav class="pager row" aria-label=${label}>
  <button type="button" class="button small" disabled=${page === 0} onClick=${() => onPage(page - 1)}><${Icon} name="previous" />Previous</button>
  <span class="quiet">Page ${page + 1} of ${pages}</span>
  <button type="button" class="button small" disabled=${page >= pages - 1} onClick=${() => onPage(page + 1)}>Next<${Icon} name="next" /></button>
</nav>`;
