// Calls of the farm's API. Names of fields are the API's own.

const BASE = "/api/v1";

/** What the API said was wrong. `status` 0: the farm could not be reached. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {{message?: string, param?: string | null, code?: string}} error
   */
  constructor(status, error) {
    super(error.message ?? `the farm answered ${status}`);
    this.status = status;
    this.param = error.param ?? null;
    this.code = error.code ?? "";
  }
}

/** Address of something under the API, for links and pictures. */
export const address = (/** @type {string} */ path) => BASE + path;

/**
 * One call; JSON in, JSON out.
 * @param {string} path under /api/v1
 * @param {{method?: string, json?: unknown, body?: BodyInit, headers?: Record<string, string>, signal?: AbortSignal,
 *   stay?: boolean}} [options] stay: a refused session does not lead to the login page
 * @returns {Promise<any>} null for an answer without a body
 */
export async function call(path, { method = "GET", json, body, headers = {}, signal, stay = false } = {}) {
  let response;
  try {
    response = await fetch(BASE + path, {
      method,
      signal,
      headers: json === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: json === undefined ? body : JSON.stringify(json),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: "The farm cannot be reached just now.", code: "unreachable" });
  }
  if (response.status === 401 && !stay) toLogin();
  if (!response.ok) throw new ApiError(response.status, await errorOf(response));
  return response.status === 204 ? null : response.json();
}

export const get = (/** @type {string} */ path, options = {}) => call(path, options);
/** POST with a JSON body, or none. */
export const post = (/** @type {string} */ path, /** @type {unknown} */ json = undefined, options = {}) =>
  call(path, { method: "POST", json, ...options });
export const remove = (/** @type {string} */ path, options = {}) => call(path, { method: "DELETE", ...options });

/**
 * Send one file, telling how far it is.
 * @param {File} file
 * @param {(share: number) => void} onProgress
 * @param {AbortSignal} signal
 * @returns {Promise<any>} the upload, as the farm checked it
 */
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    // fetch tells nothing of a body on its way.
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file, file.name);
    request.open("POST", `${BASE}/uploads`);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, { message: "The connection broke; send it again." }));
    request.onabort = () => reject(new DOMException("taken back", "AbortError"));
    request.onload = () => {
      if (request.status === 401) toLogin();
      if (request.status === 201) resolve(request.response);
      else reject(new ApiError(request.status, request.response?.error ?? {}));
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** The query part of an address; empty values are left out. */
export function query(/** @type {Record<string, string | number | null | undefined>} */ values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}

/** Where a session begins; it comes back here. */
export function toLogin() {
  location.assign(`/login${query({ next: location.pathname + location.search })}`);
}

async function errorOf(/** @type {Response} */ response) {
  try {
    return (await response.json()).error ?? {};
  } catch {
    return {};
  }
}
