// Large files that are fetched once: kept by the browser, and used only if their hash is right.
import { sha256 } from "./sha256.js";

const STORE = "reelfarm-try";

/** What a visitor can do something about. `code` says which words are shown. */
export class Trouble extends Error {
  constructor(/** @type {string} */ code, /** @type {string} */ detail = "") {
    super(detail || code);
    this.code = code;
  }
}

/** @typedef {{name: string, sha256: string, bytes: number}} WantedFile `sha256` of what is used, unpacked if it is packed */

/**
 * One file's bytes. What was kept damaged, or came damaged, is fetched once more.
 * @param {string} base where the files lie, with a slash at its end
 * @param {WantedFile} file
 * @param {(bytes: number) => void} onBytes told of what has come
 * @returns {Promise<Uint8Array>}
 */
export async function fetched(base, file, onBytes) {
  const address = new URL(file.name, base).href;
  const store = await opened();
  for (let attempt = 0; attempt < 2; attempt++) {
    const kept = attempt === 0 ? await store?.match(address).catch(() => undefined) : undefined;
    const packed = await read(kept ?? (await ask(address, file.name, attempt > 0)), file.name, onBytes);
    const content = await unpacked(packed).catch(() => null);
    if (content && (await hash(content)) === file.sha256) {
      if (!kept) await store?.put(address, new Response(packed)).catch(() => {}); // without space it comes again
      return content;
    }
    await store?.delete(address).catch(() => {});
    onBytes(-packed.length);
  }
  throw new Trouble("damaged", file.name);
}

/** Whether all of these are kept here: to have them costs no more than reading. */
export async function allKept(/** @type {string} */ base, /** @type {WantedFile[]} */ files) {
  const store = await opened();
  const found = await Promise.all(files.map(({ name }) => store?.match(new URL(name, base).href)));
  return found.every(Boolean);
}

/** Forget what no file of these is. */
export async function tidy(/** @type {string} */ base, /** @type {WantedFile[]} */ files) {
  const store = await opened();
  const wanted = new Set(files.map(({ name }) => new URL(name, base).href));
  for (const { url } of (await store?.keys()) ?? []) if (!wanted.has(url)) await store?.delete(url);
}

/** @returns {Promise<Cache | undefined>} none where the page came without TLS: the browser's own cache is left */
const opened = async () => globalThis.caches?.open(STORE).catch(() => undefined);

async function ask(/** @type {string} */ address, /** @type {string} */ name, /** @type {boolean} */ anew) {
  let answer;
  try {
    answer = await fetch(address, { cache: anew ? "reload" : "default" });
  } catch {
    throw new Trouble("offline", name);
  }
  if (!answer.ok) throw new Trouble(answer.status === 404 ? "missing" : "offline", `${name}: ${answer.status}`);
  return answer;
}

async function read(/** @type {Response} */ answer, /** @type {string} */ name, /** @type {(bytes: number) => void} */ onBytes) {
  const parts = [];
  let length = 0;
  try {
    const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      length += value.length;
      onBytes(value.length);
    }
  } catch {
    throw new Trouble("offline", name);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What is packed with gzip and came so: some servers unpack it on the way. */
async function unpacked(/** @type {Uint8Array} */ bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([/** @type {any} */ (bytes)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function hash(/** @type {Uint8Array} */ bytes) {
  if (!globalThis.crypto?.subtle) return sha256(bytes);
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)));
  return [...found].map((n) => n.toString(16).padStart(2, "0")).join("");
}
