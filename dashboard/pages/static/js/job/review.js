// The keyframes of a job that waits for its user: looked at in order, made again, replaced, approved.
import { address, call, get, post, query, remove } from "../api.js";
import { html, useEffect, useState } from "../html.js";
import { duration, plural } from "../format.js";
import { Icon } from "../icons.js";
import { Button, Card, Dialog, ErrorNote, Picture } from "../parts.js";

/** Pixels of the longest side that any video has. */
const FULL = 4096;

/** @typedef {Record<string, any>} Keyframe a KeyframeDetail */

/**
 * Shown until they are approved.
 * @param {{job: any, version: number, mayChange: boolean}} props version: of the job's segments
 */
export const Review = ({ job, version, mayChange }) => {
  const [keyframes, error] = useKeyframes(job, version);
  const [again, setAgain] = useState(/** @type {Keyframe | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [said, setSaid] = useState("");
  const tried = (/** @type {Promise<any>} */ work) => work.then((answer) => {
    setProblem(null);
    return answer;
  }, setProblem);
  const replace = async (/** @type {Keyframe} */ keyframe, /** @type {File} */ file) => {
    const form = new FormData();
    form.append("picture", file, file.name);
    const answer = await tried(call(`/jobs/${job.id}/keyframes/${keyframe.number}/picture`, { method: "PUT", body: form }));
    if (answer) setSaid([`Keyframe ${keyframe.number} is ${file.name} now`, ...answer.notes].join("; "));
  };
  const waits = job.review === "waiting";
  const several = new Set(keyframes?.map(({ prompt }) => prompt)).size > 1;
  return html`<${Card} title="Keyframes" className="review-card" actions=${html`<span class="quiet small-text">${waits ? "all there" : "being made"}</span>`}>
    <p class="quiet">The video is rendered from these pictures, in this order, once you say so. Any can be made again, or be a picture of yours.</p>
    <${ErrorNote} error=${error ?? problem} />
    <ol class="keyframes" data-testid="keyframes">${keyframes?.map((keyframe) => html`<${Item} key=${keyframe.number} job=${job} keyframe=${keyframe}
      mayChange=${mayChange} showPrompt=${several} onAgain=${() => setAgain(keyframe)} onFile=${(/** @type {File} */ file) => replace(keyframe, file)}
      onBack=${() => tried(remove(`/jobs/${job.id}/keyframes/${keyframe.number}/picture`)).then(() => setSaid(`Keyframe ${keyframe.number} is as it was rendered`))} />`)}</ol>
    <p class="small-text quiet" role="status">${said}</p>
    ${mayChange && html`<div class="row end"><${Button} kind="primary large" disabled=${!waits} onPress=${() => tried(post(`/jobs/${job.id}/approve`))} testid="approve">
      <${Icon} name="film" />Render the video</${Button}></div>`}
    ${again && html`<${MakeAgain} job=${job} keyframe=${again} onClose=${() => setAgain(null)} onDone=${setSaid} />`}
  </${Card}>`;
};

/**
 * A job's keyframes, read anew whenever something of them may have changed.
 * @returns {[Keyframe[] | null, any]}
 */
function useKeyframes(/** @type {any} */ job, /** @type {number} */ version) {
  const [keyframes, setKeyframes] = useState(/** @type {Keyframe[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    const abort = new AbortController();
    const load = async () => {
      /** @type {Keyframe[]} */
      const found = [];
      let cursor = null;
      do {
        const page = await get(`/jobs/${job.id}/keyframes${query({ limit: 200, cursor })}`, { signal: abort.signal });
        found.push(...page.data);
        cursor = page.next_cursor;
      } while (cursor);
      setKeyframes(found);
      setError(null);
    };
    load().catch((problem) => abort.signal.aborted || setError(problem));
    return () => abort.abort();
  }, [job.id, job.review, version]);
  return [keyframes, error];
}

const Item = ({ job, keyframe, mayChange, showPrompt, onAgain, onFile, onBack }) => {
  const { number, frame, time_s, seed, status, replaced, replaceable, sha256, prompt } = keyframe;
  const there = status === "done";
  const choose = (/** @type {any} */ event) => {
    if (event.target.files[0]) onFile(event.target.files[0]);
    event.target.value = "";
  };
  return html`<li><figure class=${there ? "" : "coming"}>
    <div class="keyframe-picture" style=${{ aspectRatio: `${job.width} / ${job.height}` }}>
      ${sha256 && html`<a href=${address(`/jobs/${job.id}/keyframes/${number}/picture${query({ side: FULL })}`)} target="_blank" rel="noopener" aria-label=${`Keyframe ${number} in full size`}><${Picture} src=${address(`/jobs/${job.id}/keyframes/${number}/picture`)} version=${sha256} alt=${`Keyframe ${number}`} /></a>`}
      ${!there && html`<span class="keyframe-note">${status === "running" ? "being made" : "waits to be made"}</span>`}
    </div>
    <figcaption><strong>${number}</strong> <span class="quiet">${duration(time_s)}, frame ${frame}</span><br />
      <span class="quiet">${replaced ? "your picture" : `seed ${seed}`}</span>${showPrompt && prompt && html`<br /><span class="quiet">${prompt}</span>`}</figcaption>
  </figure>
  ${mayChange && html`<div class="row keyframe-tools">
    <button type="button" class="button small" aria-label=${`Make keyframe ${number} again`} onClick=${onAgain}><${Icon} name="retry" />Make again</button>
    ${replaced ? html`<button type="button" class="button small" aria-label=${`Take the picture of keyframe ${number} back`} onClick=${onBack}>Take back</button>`
      : replaceable && html`<label class="button small"><input type="file" class="visually-hidden" accept="image/*,.heic,.heif,.avif,.tif,.tiff" onChange=${choose}
        aria-label=${`Replace keyframe ${number} with a picture`} />Replace…</label>`}
  </div>`}</li>`;
};

const MakeAgain = ({ job, keyframe, onClose, onDone }) => {
  const [seed, setSeed] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  const { number, made_again_with: others } = keyframe;
  const make = async () => {
    try {
      await post(`/jobs/${job.id}/keyframes/${number}/remake`, { seed: seed === "" ? null : Number(seed) });
      onDone(`Keyframe ${number} is made again`);
      onClose();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title=${`Make keyframe ${number} again`} onClose=${onClose}>
    <p>${others.length ? `With it ${listed(others)} ${others.length === 1 ? "is" : "are"} made again: they come of the same draft.` : "No other is made again with it."}
      ${" "}${keyframe.replaced ? "Your picture gives way to what is rendered." : "Pictures that you put in place of others stay."}</p>
    <div class="field-grid"><label class="field"><span>Seed</span>
      <input type="number" inputmode="numeric" autofocus min="0" step="1" placeholder="another than before" value=${seed}
        onInput=${(/** @type {any} */ event) => setSeed(event.target.value)} /></label></div>
    <${ErrorNote} error=${error} />
    <div class="row end"><button type="button" class="button" onClick=${onClose}>Keep as it is</button>
      <${Button} kind="primary" onPress=${make} testid="confirm-remake">Make again</${Button}></div>
  </${Dialog}>`;
};

/** "keyframe 2", "keyframes 2 and 3", "keyframes 2 to 9" or "7 keyframes (2, 3, …)". */
function listed(/** @type {number[]} */ numbers) {
  const [first, last] = [numbers[0], numbers[numbers.length - 1]];
  if (numbers.length === 1) return `keyframe ${first}`;
  if (numbers.length === 2) return `keyframes ${first} and ${last}`;
  if (last - first === numbers.length - 1) return `keyframes ${first} to ${last}`;
  return `${plural(numbers.length, "keyframe")} (${numbers.join(", ")})`;
}
