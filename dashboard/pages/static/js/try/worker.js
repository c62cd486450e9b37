// The worker of the page: holds the model, makes one clip at a time. Whoever cancels ends the worker.
import { Trouble } from "./files.js";
import { isKept, loaded, threads, withoutCard } from "./model.js";
import { decoded, fitted } from "./picture.js";
import { packed } from "./video.js";

/** @type {Promise<any> | undefined} */
let model;

const tell = (/** @type {any} */ message, /** @type {Transferable[]} */ transfer = []) => /** @type {any} */ (self).postMessage(message, transfer);
const onProgress = (/** @type {string} */ stage, /** @type {number} */ done, /** @type {number} */ total) => tell({ kind: "progress", stage, done, total });

function ready(/** @type {string} */ base) {
  model ??= loaded(base, onProgress).catch((error) => {
    model = undefined; // the next wish tries again
    throw error;
  });
  return model;
}

/** @type {Record<string, (message: any) => Promise<void>>} */
const ORDERS = {
  /** What is not there is said when a clip is wished for. */
  async prepare({ base, ifKept }) {
    if (!ifKept || (await isKept(base).catch(() => false))) await ready(base).catch(() => {});
  },
  async make({ base, photo, wish }) {
    const image = await decoded(photo).catch(() => {
      throw new Trouble("picture");
    });
    const first = fitted(image, wish.width, wish.height);
    tell({ kind: "first", pixels: first.slice() });
    const found = await ready(base);
    tell({ kind: "by", threads: threads(), onCard: found.onCard });
    const frames = await found.made(first, wish, onProgress).catch(async (/** @type {any} */ error) => {
      if (!found.onCard) throw error;
      model = withoutCard(base, onProgress);
      tell({ kind: "by", threads: threads(), onCard: false });
      return (await model).made(first, wish, onProgress);
    });
    tell({ kind: "clip", frames }, [frames.buffer]);
  },
  async pack({ frames, width, height, fps }) {
    tell({ kind: "packed", ...(await packed(frames, width, height, fps)) });
  },
};

addEventListener("message", async ({ data }) => {
  try {
    await ORDERS[data.order](data);
  } catch (error) {
    tell({ kind: "trouble", ...said(error) });
  }
});

/** @returns {{code: string, detail: string}} */
function said(/** @type {any} */ error) {
  if (error instanceof Trouble) return { code: error.code, detail: error.message };
  const detail = String(error?.message ?? error);
  // What browsers and the runtime say when there is no more.
  const full = error instanceof RangeError || /memory|bad_alloc|allocat|\b\d{6,}\b/i.test(detail);
  return { code: full ? "memory" : "other", detail };
}
