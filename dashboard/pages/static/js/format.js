// Values as people read them. What is not known is said so: null is never a zero.

export const UNKNOWN = "unknown";
const GIB = 2 ** 30;

const number = new Intl.NumberFormat("en");
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** @typedef {number | null | undefined} Maybe */

/** Apply a format, or say that the value is not known. */
const known = (/** @type {Maybe} */ value, /** @type {(value: number) => string} */ format) =>
  value == null || Number.isNaN(value) ? UNKNOWN : format(value);

export const count = (/** @type {Maybe} */ value) => known(value, (v) => number.format(v));
export const share = (/** @type {Maybe} */ value) => known(value, (v) => percent.format(v));
export const plural = (/** @type {number} */ n, /** @type {string} */ word) =>
  `${number.format(n)} ${word}${n === 1 ? "" : "s"}`;

/** 12 s, 3 min 05 s, 2 h 10 min. */
export const duration = (/** @type {Maybe} */ seconds) => known(seconds, (s) => {
  if (s < 0.95) return `${s.toFixed(s < 0.095 ? 2 : 1)} s`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${(s / 86400).toFixed(1)} days`;
});

/** A prediction: no finer than anyone can tell. */
export const about = (/** @type {Maybe} */ seconds) =>
  known(seconds, (s) => (s <= 59 ? `${Math.max(1, Math.ceil(s))} s` : duration(Math.ceil(s / 5) * 5)));

export const bytes = (/** @type {Maybe} */ size) => known(size, (b) => {
  if (b >= 0.1 * GIB) return `${(b / GIB).toFixed(b >= 10 * GIB ? 1 : 2)} GiB`;
  if (b >= 1e5) return `${(b / 2 ** 20).toFixed(1)} MiB`;
  return b >= 1024 ? `${(b / 1024).toFixed(1)} KiB` : `${b} B`;
});

/** In the cluster file's currency, which it does not name. */
export const cost = (/** @type {Maybe} */ value) =>
  known(value, (v) => (v === 0 || v >= 0.1 ? v.toFixed(2) : v < 0.0001 ? "under 0.0001" : v.toPrecision(2)));

export const figure = (/** @type {Maybe} */ value, digits = 2) => known(value, (v) => v.toFixed(digits));
export const celsius = (/** @type {Maybe} */ value) => known(value, (v) => `${Math.round(v)} °C`);
export const watts = (/** @type {Maybe} */ value) => known(value, (v) => `${Math.round(v)} W`);

/** Time of day when it was today, with the date otherwise. */
export const moment = (/** @type {Maybe} */ at) => known(at, (v) => {
  const then = new Date(v * 1000);
  return (then.toDateString() === new Date().toDateString() ? clock : day).format(then);
});
export const momentExactly = (/** @type {Maybe} */ at) => known(at, (v) => exact.format(new Date(v * 1000)));

export const fps = (/** @type {Maybe | string} */ value) =>
  known(value == null ? null : rate(value), (v) => `${Number(v.toFixed(3))} fps`);

/** Frame rates come as 8, "8" or "30000/1001". */
export function rate(/** @type {number | string} */ value) {
  const [above, below = "1"] = String(value).split("/");
  return Number(above) / Number(below);
}

/** What a video of so many frames lasts, and how many they are. */
export const length = (/** @type {number} */ numFrames, /** @type {number | string} */ framesPerSecond) =>
  `${duration(numFrames / rate(framesPerSecond))} · ${plural(numFrames, "frame")}`;

/** A name as the API has it, as words: "valid_fraction" -> "valid fraction". */
export const words = (/** @type {string} */ name) => name.replaceAll("_", " ");
