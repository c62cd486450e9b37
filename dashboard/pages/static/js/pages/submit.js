// A new video: what goes in, how it should be, what the farm would make of it.
import { get, post, query, remove, upload } from "../api.js";
import { html, useCallback, useEffect, useMemo, useRef, useState } from "../html.js";
import { about } from "../format.js";
import { follow } from "../live.js";
import { Button, Card, ErrorNote } from "../parts.js";
import { start, useScope } from "../shell.js";
import { forget, keep, kept, requestOf } from "../submit/form.js";
import { Mask, References } from "../submit/beside.js";
import { Inputs } from "../submit/inputs.js";
import { Licence } from "../submit/licence.js";
import { PlanPreview, usePlan } from "../submit/plan.js";
import { Runs } from "../submit/runs.js";
import { Settings } from "../submit/settings.js";
import { Sound, useFile } from "../submit/sound.js";

/** @typedef {import("../submit/form.js").Form} Form */
/** @typedef {import("../submit/form.js").Input} Input */

const CHOICES_ANEW_MS = 1000;

const NewVideo = () => {
  const [form, setForm] = useState(() => kept().form);
  const [inputs, setInputs, onPictures] = useInputs("inputs");
  const [sound, onSound, dropSound] = useFile("audio");
  const [mask, onMask, dropMask] = useFile("mask");
  const [references, setReferences, onReferences] = useInputs("references");
  const onFiles = useCallback((/** @type {File[]} */ files) => {
    const isSound = (/** @type {File} */ file) => file.type.startsWith("audio/");
    const song = files.find(isSound);
    if (song) onSound(song);
    const rest = files.filter((file) => !isSound(file));
    if (rest.length) onPictures(rest);
  }, []);
  const [models, presets, listAnew] = useLists();
  const entry = models?.find((/** @type {any} */ m) => m.model === form.model);
  // Nothing is fetched before it is asked for: some models are more than 100 GB.
  const known = entry?.here && entry.accepted ? form.model : "";
  const [error, setError] = useState(/** @type {any} */ (null));
  const maySubmit = useScope("submit");
  const set = useCallback((/** @type {Partial<Form>} */ change) => setForm((before) => ({ ...before, ...change })), []);
  useEffect(() => keep(form, inputs, { audio: sound, mask, references }), [form, inputs, sound, mask, references]);
  useEffect(() => {
    if (models?.length && !models.some((/** @type {any} */ m) => m.model === form.model)) set({ model: defaultModel(models) });
  }, [models]);

  const isVideo = inputs[0]?.upload?.kind === "video";
  const takes = { mask: isVideo && entry?.takes.includes("mask"), references: entry?.takes.includes("references") };
  // What the model does not take stays here for one that does.
  const beside = { audio: sound, mask: takes.mask ? mask : null, references: takes.references ? references : [] };
  const suited = useMemo(() => presets?.filter(({ suits }) => suits.includes(isVideo ? "video" : "image")) ?? [], [presets, isVideo]);
  useEffect(() => {
    if (suited.length && !suited.some(({ name }) => name === form.preset)) set({ preset: suited[0].name });
  }, [suited]);

  const waiting = waitingFor(inputs, form, beside, entry);
  const unseen = waiting ?? (known ? null : `The files of ${form.model} are not here yet. Render fetches them first, which takes a while.`);
  const [fleet, choices] = useChoices(known, inputs[0]?.upload?.id);
  useEffect(() => {
    // Another model or another picture has other sizes: what is no choice any more is not asked for unseen.
    if (!choices) return;
    const { sizes, windows, modes } = choices;
    if (form.size && !sizes.some((/** @type {any} */ c) => `${c.width}x${c.height}` === form.size)) set({ size: "" });
    if (form.window_frames && !windows.some((/** @type {any} */ c) => String(c.window_frames) === form.window_frames)) set({ window_frames: "" });
    if (form.mode !== "auto" && !modes.some((/** @type {any} */ c) => c.mode === form.mode)) set({ mode: "auto" });
  }, [choices]);
  const body = useMemo(() => (unseen ? null : JSON.stringify(requestOf(form, inputs, beside))), [form, inputs, sound, mask, references, unseen]);
  // The workers are part of the question: when one comes or goes the same form has another plan.
  const planned = usePlan(body, fleet);
  const submit = useSubmit(setError);
  const start_ = (/** @type {Partial<Form>} */ change) => submit(requestOf({ ...form, ...change }, inputs, beside));
  const ready = !waiting && !planned.error && maySubmit !== false;
  const several = inputs.length > 1;
  const predicted = planned.answer?.quote.predicted_s;

  return html`<div class="page-head"><h1>New video</h1><div class="row"><a class="button small plain" href="/try">Try it in this browser</a></div></div>
  <form class="submit" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ready && start_({})}>
    <div class="stack">
      <${Card} title=${several ? "Storyboard" : "Start from"}>
        <${Inputs} inputs=${inputs} onFiles=${onFiles} onChange=${setInputs} onePrompt=${form.one_prompt} between=${form.mode === "infill"} />
        <div class="field prompt">
          ${several && html`<div class="chips" role="radiogroup" aria-label="Prompts">
            ${[[true, "One prompt for all"], [false, form.mode === "infill" ? "One between each two" : "One for each picture"]].map(([one, words]) => html`<label key=${words}>
              <input type="radio" name="one_prompt" checked=${form.one_prompt === one} onChange=${() => set({ one_prompt: one })} />${words}</label>`)}
          </div>`}
          ${(form.one_prompt || !several) && html`<label for="prompt">Prompt</label>
          <textarea id="prompt" name="prompt" rows="3" placeholder="What should be seen, and how it moves" value=${form.prompt}
            aria-invalid=${planned.error?.param === "prompt" || undefined}
            onInput=${(/** @type {any} */ event) => set({ prompt: event.target.value })}></textarea>`}
        </div>
        <${Sound} sound=${sound} onFile=${onSound} onRemove=${dropSound} first=${inputs[0]?.upload} />
        ${takes.mask && html`<${Mask} mask=${mask} onFile=${onMask} onRemove=${dropMask} />`}
        ${takes.references && html`<${References} references=${references} onFiles=${onReferences} onChange=${setReferences} />`}
      </${Card}>
      <${Card} title="Settings">
        <${Settings} form=${form} set=${set} models=${models} presets=${suited} choices=${choices}
          wrong=${planned.error?.param ?? null} isVideo=${isVideo} runs=${html`<${Licence} entry=${entry} onAccepted=${listAnew} /><${Runs} model=${form.model} fleet=${fleet} />`} />
      </${Card}>
    </div>
    <div class="submit-side">
      <${Card} title="Plan" className="plan-card"><div class="plan-scroll" tabindex="0" role="group" aria-label="Details of the plan"><${PlanPreview} planned=${planned} waiting=${unseen} inputs=${inputs} /></div></${Card}>
      <div class="submit-actions">
        <${ErrorNote} error=${error} />
        ${maySubmit === false && html`<p class="note warn">Your key may look but not submit.</p>`}
        <div class="row"><${Button} kind="primary large" disabled=${!ready} onPress=${() => start_({})} testid="render">
            Render${predicted != null && ready && html`<span class="predicted">${about(predicted)}</span>`}</${Button}>
          <${Button} kind="large" disabled=${!ready} onPress=${() => start_({ preview: true, num_inference_steps: "" })} testid="quick-preview">Quick preview</${Button}></div>
      </div>
    </div>
  </form>`;
};

/** The inputs, and what to do with new files: each is sent at once. */
function useInputs(/** @type {"inputs" | "references"} */ name) {
  const [inputs, setInputs] = useState(() => kept()[name]);
  const next = useRef(Date.now());
  const sending = useRef(/** @type {Map<number, AbortController>} */ (new Map()));

  useEffect(() => {
    // The farm keeps an upload for a day; what was dropped before that is gone.
    for (const { key, upload: there } of inputs) {
      if (there) get(`/uploads/${there.id}`).catch((error) => error.status === 404 && drop(key));
    }
  }, []);
  const drop = (/** @type {number} */ key) => setInputs((before) => before.filter((input) => input.key !== key));
  const patch = (/** @type {number} */ key, /** @type {Partial<Input>} */ change) =>
    setInputs((before) => before.map((input) => (input.key === key ? { ...input, ...change } : input)));

  const onFiles = useCallback((/** @type {File[]} */ files) => {
    const fresh = files.map((file) => ({ file, key: next.current++ }));
    setInputs((before) => [...before.filter((input) => !input.error), ...fresh.map(({ file, key }) =>
      ({ key, name: file.name, prompt: "", progress: 0, upload: null, error: null }))]);
    for (const { file, key } of fresh) {
      const abort = new AbortController();
      sending.current.set(key, abort);
      upload(file, (progress) => patch(key, { progress }), abort.signal)
        .then((there) => patch(key, { upload: there, progress: 1 }), (error) => patch(key, { error }))
        .finally(() => sending.current.delete(key));
    }
  }, []);
  const change = (/** @type {Input[]} */ wanted) => {
    for (const input of inputs.filter(({ key }) => !wanted.some((other) => other.key === key))) {
      sending.current.get(input.key)?.abort();
      if (input.upload) remove(`/uploads/${input.upload.id}`).catch(() => {}); // else it goes by itself in a day
    }
    setInputs(wanted);
  };
  return /** @type {const} */ ([inputs, change, onFiles]);
}

/** Models and presets, asked until they are there. */
function useLists() {
  const [models, setModels] = useState(/** @type {any[] | null} */ (null));
  const [presets, setPresets] = useState(/** @type {any[] | null} */ (null));
  const [again, setAgain] = useState(0);
  useEffect(() => {
    Promise.all([get("/models"), get("/presets")]).then(([m, p]) => {
      setModels(m.data);
      setPresets(p.data);
    }, () => setTimeout(() => setAgain((n) => n + 1), 2000));
  }, [again]);
  return /** @type {const} */ ([models, presets, () => setAgain((n) => n + 1)]);
}

const defaultModel = (/** @type {any[]} */ models) => (models.find((m) => m.default) ?? models.find((m) => m.model === "tiny_wan") ?? models[0]).model;

/**
 * What the workers can run of a model, and how often they have changed.
 * @param {string} model
 * @param {string | undefined} uploadId
 */
function useChoices(model, uploadId) {
  const [fleet, setFleet] = useState(0);
  const [choices, setChoices] = useState(/** @type {any} */ (null));
  useEffect(() => {
    /** @type {number | undefined} */
    let timer;
    const anew = () => {
      clearTimeout(timer);
      timer = window.setTimeout(() => setFleet((n) => n + 1), CHOICES_ANEW_MS);
    };
    const changes = new Set(["worker_joined", "worker_left", "worker_draining", "worker_enabled"]);
    let end = () => {};
    get("/nodes?limit=1").then((nodes) => {
      end = follow(nodes.last_event_id ?? 0, ({ type }) => changes.has(type) && anew(), anew);
    }, anew);
    return () => {
      clearTimeout(timer);
      end();
    };
  }, []);
  useEffect(() => {
    if (!model) return undefined;
    const abort = new AbortController();
    get(`/models/${encodeURIComponent(model)}/choices${query({ upload_id: uploadId })}`, { signal: abort.signal })
      .then(setChoices, () => {});
    return () => abort.abort();
  }, [model, uploadId, fleet]);
  return [fleet, choices];
}

/** Submits once, however often the button is pressed or the connection breaks. */
function useSubmit(/** @type {(error: any) => void} */ setError) {
  const attempt = useRef({ body: "", key: "" });
  return async (/** @type {object} */ request) => {
    const body = JSON.stringify(request);
    if (attempt.current.body !== body) attempt.current = { body, key: randomKey() };
    try {
      const job = await post("/jobs", request, { headers: { "Idempotency-Key": attempt.current.key } });
      forget();
      location.assign(`/jobs/${job.id}`);
    } catch (error) {
      setError(error);
    }
  };
}

/** `crypto.randomUUID` is there on safe origins only, and a farm on a home network has none. */
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");

function waitingFor(/** @type {Input[]} */ inputs, /** @type {Form} */ form, /** @type {import("../submit/form.js").Beside} */ beside, /** @type {any} */ entry) {
  const makesOfWords = entry?.takes.includes("text_alone");
  if (inputs.length === 0 && !makesOfWords) return "Drop a picture or a video to see what the farm can make of it.";
  if (inputs.length === 0 && !form.prompt.trim()) return `Drop a picture or a video, or say what is to be seen: ${entry.model} needs no more.`;
  const files = [...inputs, ...beside.references, beside.audio, beside.mask].filter((file) => file !== null);
  if (files.some(({ error }) => error)) return "Remove what could not be taken in.";
  if (files.some(({ upload: there }) => !there)) return "The plan comes when everything is uploaded.";
  if (entry && !entry.accepted) return `The ${entry.licence.name} of ${entry.model} has to be accepted first.`;
  return entry ? null : "The models are being read.";
}

start(NewVideo);
