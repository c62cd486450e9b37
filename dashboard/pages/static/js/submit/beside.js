// Files that go with a new video beside what it starts from: a mask, and pictures of what is to be seen.
import { html } from "../html.js";
import { Icon } from "../icons.js";
import { share } from "../format.js";
import { Bar } from "../parts.js";

/** @typedef {import("./form.js").Input} Input */

/** @param {{input: Input, said: string, onRemove: () => void}} props said: of a file that is there */
export const FileRow = ({ input, said, onRemove }) => html`<div class="input-row">
  <span class="input-text"><span class="input-name" title=${input.name}>${input.name}</span>
    ${input.error ? html`<span class="field-error" role="alert">${input.error.message}</span>`
      : input.upload ? html`<span class="quiet small-text">${said}</span>`
      : html`<${Bar} value=${input.progress} label=${`Upload of ${input.name}`} />
        <span class="quiet small-text">${input.progress < 1 ? `${share(input.progress)} sent` : "The farm is checking it…"}</span>`}</span>
  <span class="input-tools"><button type="button" class="button small plain" aria-label=${`Remove ${input.name}`} onClick=${onRemove}><${Icon} name="remove" /></button></span>
</div>`;

/** @param {{label: string, words: string, accept: string, several?: boolean, onFiles: (files: File[]) => void}} props */
export const FileButton = ({ label, words, accept, several = false, onFiles }) => {
  const choose = (/** @type {any} */ event) => {
    if (event.target.files.length) onFiles([...event.target.files]);
    event.target.value = "";
  };
  return html`<label class="button small">
    <input type="file" class="visually-hidden" accept=${accept} multiple=${several} onChange=${choose} aria-label=${label} />${words}</label>`;
};

const MOST_REFERENCES = 4;

/** @param {{mask: Input | null, onFile: (file: File) => void, onRemove: () => void}} props */
export const Mask = ({ mask, onFile, onRemove }) => html`<div class="sound" data-testid="mask"><span class="legend">Mask</span>
  ${mask ? html`<${FileRow} input=${mask} said="The video changes where it is white." onRemove=${onRemove} />`
    : html`<span class="quiet small-text">None: the whole video changes.</span>`}
  <${FileButton} label="Choose a mask" words=${mask ? "Choose another" : "Add a mask"} accept="image/*,video/*" onFiles=${(/** @type {File[]} */ files) => onFile(files[0])} />
</div>`;

/** @param {{references: Input[], onFiles: (files: File[]) => void, onChange: (references: Input[]) => void}} props */
export const References = ({ references, onFiles, onChange }) => html`<div class="sound" data-testid="references"><span class="legend">References</span>
  ${references.map((input) => html`<${FileRow} key=${input.key} input=${input} said="To be seen in the video."
    onRemove=${() => onChange(references.filter((other) => other !== input))} />`)}
  ${references.length === 0 && html`<span class="quiet small-text">None. A picture shows what is to be seen, or what it is to look like.</span>`}
  ${references.length < MOST_REFERENCES && html`<${FileButton} label="Choose references" words="Add a picture" accept="image/*" several
    onFiles=${(/** @type {File[]} */ files) => onFiles(files.slice(0, MOST_REFERENCES - references.length))} />`}
</div>`;
