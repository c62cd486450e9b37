// The licence of the chosen model: named always, to be accepted once where it restricts use.
import { post } from "../api.js";
import { html, useState } from "../html.js";
import { Button, ErrorNote } from "../parts.js";

/** @param {{entry: any, onAccepted: () => void}} props entry: the model as the farm lists it */
export const Licence = ({ entry, onAccepted }) => {
  const [error, setError] = useState(/** @type {any} */ (null));
  if (!entry?.licence) return null;
  const { name, url, restricts_use } = entry.licence;
  const link = html`<a href=${url} rel="noreferrer">${name}</a>`;
  if (entry.accepted) return html`<p class="small-text quiet">Weights under the ${link}${restricts_use ? ", accepted for this farm" : ""}.</p>`;
  const accept = () => post("/models/licences", { model: entry.model }).then(onAccepted, setError);
  return html`<div class="note warn" data-testid="licence">
    <p>The ${link} restricts what ${entry.model} is used for. Read it; whoever runs this farm accepts it once.</p>
    <${Button} onPress=${accept} testid="accept-licence">I accept it for this farm</${Button}>
    <${ErrorNote} error=${error} />
  </div>`;
};
