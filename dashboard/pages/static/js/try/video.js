// Frames as a file: WebM by the browser's own encoder, where it has one, else an animated WebP of its pictures.

const KEY_EVERY = 48;

/**
 * @param {Uint8ClampedArray} frames RGBA of all
 * @param {number} width
 * @param {number} height
 * @param {number} fps
 * @returns {Promise<{blob: Blob, suffix: string}>}
 */
export async function packed(frames, width, height, fps) {
  const codec = await encodable(width, height, fps);
  return codec ? { blob: await webm(frames, width, height, fps, codec), suffix: "webm" } : { blob: await webp(frames, width, height, fps), suffix: "webp" };
}

const CODECS = { V_VP9: "vp09.00.10.08", V_VP8: "vp8" };

async function encodable(/** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ fps) {
  if (!("VideoEncoder" in globalThis)) return null;
  for (const name of Object.keys(CODECS)) {
    const found = await VideoEncoder.isConfigSupported(config(name, width, height, fps)).catch(() => null);
    if (found?.supported) return name;
  }
  return null;
}

/** Four bits for each pixel of a frame: what is made is small, and is to look as it was made. */
const config = (/** @type {string} */ name, /** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ fps) =>
  ({ codec: CODECS[name], width, height, framerate: fps, bitrate: 4 * width * height * fps });

async function webm(/** @type {Uint8ClampedArray} */ frames, /** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ fps, /** @type {string} */ codec) {
  /** @type {{at: number, key: boolean, data: Uint8Array}[]} */
  const blocks = [];
  /** @type {Error | undefined} */
  let failed;
  const encoder = new VideoEncoder({
    output(chunk) {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      blocks.push({ at: Math.round(chunk.timestamp / 1000), key: chunk.type === "key", data });
    },
    error(error) {
      failed = error;
    },
  });
  encoder.configure(config(codec, width, height, fps));
  const size = 4 * width * height;
  for (let i = 0; i * size < frames.length; i++) {
    const frame = new VideoFrame(frames.subarray(i * size, (i + 1) * size), {
      format: "RGBX", codedWidth: width, codedHeight: height, timestamp: Math.round((i * 1e6) / fps), duration: Math.round(1e6 / fps),
    });
    encoder.encode(frame, { keyFrame: i % KEY_EVERY === 0 });
    frame.close();
  }
  await encoder.flush();
  if (failed) throw failed;
  return matroska(blocks, { codec, width, height, duration: (frames.length / size / fps) * 1000 });
}

// Elements of Matroska (RFC 9559), those that WebM takes.

/** @typedef {{codec: string, width: number, height: number, duration: number}} Track `duration` in milliseconds */

function matroska(/** @type {{at: number, key: boolean, data: Uint8Array}[]} */ blocks, /** @type {Track} */ { codec, width, height, duration }) {
  const head = element(0x1a45dfa3, element(0x4286, byte(1)), element(0x42f7, byte(1)), element(0x42f2, byte(4)), element(0x42f3, byte(8)),
    element(0x4282, text("webm")), element(0x4287, byte(2)), element(0x4285, byte(2)));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setFloat64(0, duration);
  const info = element(0x1549a966, element(0x2ad7b1, number(1e6)), element(0x4489, length), element(0x4d80, text("Reelfarm")), element(0x5741, text("Reelfarm")));
  const video = element(0xe0, element(0xb0, number(width)), element(0xba, number(height)));
  const tracks = element(0x1654ae6b, element(0xae, element(0xd7, byte(1)), element(0x73c5, byte(1)), element(0x9c, byte(0)), element(0x83, byte(1)), element(0x86, text(codec)), video));
  const cluster = element(0x1f43b675, element(0xe7, byte(0)),
    ...blocks.map(({ at, key, data }) => element(0xa3, Uint8Array.of(0x81, (at >> 8) & 0xff, at & 0xff, key ? 0x80 : 0), data)));
  return new Blob(/** @type {any} */ ([...head, ...element(0x18538067, info, tracks, cluster)]), { type: "video/webm" });
}

const text = (/** @type {string} */ words) => new TextEncoder().encode(words);

/** Big end first, as few bytes as it takes. */
const number = (/** @type {number} */ n) => {
  const bytes = [];
  for (let rest = n; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return Uint8Array.from(bytes);
};

const byte = (/** @type {number} */ n) => Uint8Array.of(n);

/** An id, the length of what it holds in eight bytes, and that. @returns {Uint8Array[]} */
function element(/** @type {number} */ id, /** @type {(Uint8Array | Uint8Array[])[]} */ ...content) {
  const parts = content.flat();
  const size = new Uint8Array(8);
  new DataView(size.buffer).setUint32(4, parts.reduce((sum, part) => sum + part.length, 0));
  size[0] = 1;
  return [number(id), size, ...parts];
}

/** RIFF with a picture of the browser's own for each frame. */
async function webp(/** @type {Uint8ClampedArray} */ frames, /** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ fps) {
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const size = 4 * width * height;
  const parts = [chunk("VP8X", [0x02, 0, 0, 0, ...little(width - 1, 3), ...little(height - 1, 3)]), chunk("ANIM", [0, 0, 0, 255, 0, 0])];
  for (let i = 0; i * size < frames.length; i++) {
    context.putImageData(new ImageData(frames.slice(i * size, (i + 1) * size), width, height), 0, 0);
    const picture = await canvas.convertToBlob({ type: "image/webp", quality: 0.95 });
    if (picture.type !== "image/webp") throw new Error("this browser writes neither WebM nor WebP");
    const content = new Uint8Array(await picture.arrayBuffer()).subarray(12);
    const until = (/** @type {number} */ frame) => Math.round((frame * 1000) / fps);
    const head = [...little(0, 3), ...little(0, 3), ...little(width - 1, 3), ...little(height - 1, 3), ...little(until(i + 1) - until(i), 3), 0x02];
    parts.push(chunk("ANMF", [...head, ...pictureChunks(content)]));
  }
  const length = parts.reduce((sum, part) => sum + part.length, 4);
  return new Blob([text("RIFF"), Uint8Array.from(little(length, 4)), text("WEBP"), ...parts], { type: "image/webp" });
}

/** Of a still picture what holds its pixels: no header of its own, no profile. */
function* pictureChunks(/** @type {Uint8Array} */ content) {
  for (let at = 0; at + 8 <= content.length; ) {
    const size = new DataView(content.buffer, content.byteOffset + at).getUint32(4, true);
    const end = at + 8 + size + (size & 1);
    if (["VP8 ", "VP8L", "ALPH"].includes(String.fromCharCode(...content.subarray(at, at + 4)))) yield* content.subarray(at, end);
    at = end;
  }
}

const little = (/** @type {number} */ n, /** @type {number} */ bytes) => Array.from({ length: bytes }, (_, i) => (n >>> (8 * i)) & 0xff);

function chunk(/** @type {string} */ name, /** @type {number[]} */ content) {
  return Uint8Array.from([...text(name), ...little(content.length, 4), ...content, ...(content.length & 1 ? [0] : [])]);
}
