// A few line icons, 20 by 20. They stand beside words or are hidden from readers of the screen.
import { html } from "./html.js";

const SHAPES = {
  add: "M10 4v12M4 10h12",
  cancel: "M5 5l10 10M15 5L5 15",
  check: "M4 10.5l4 4 8-9",
  copy: "M7 7h9v9H7zM4 13V4h9",
  download: "M10 3v10M6 9.5l4 4 4-4M4 16.5h12",
  down: "M5 8l5 5 5-5",
  up: "M5 12l5-5 5 5",
  film: "M3 4h14v12H3zM3 8h14M3 12h14M7 4v12M13 4v12",
  moon: "M16.5 12.3A7 7 0 0 1 7.7 3.5a7 7 0 1 0 8.8 8.8z",
  next: "M8 5l5 5-5 5",
  picture: "M3 4h14v12H3zM3 13l4-4 4 4 2.5-2.5L17 14M12.5 7.5h.01",
  previous: "M12 5l-5 5 5 5",
  remove: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6",
  retry: "M4 10a6 6 0 1 1 1.8 4.3M4 15.5v-4h4",
  search: "M9 4a5 5 0 1 1 0 10A5 5 0 0 1 9 4zM12.6 12.6L17 17",
  sun: "M10 6.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.4 4.4l1 1M14.6 14.6l1 1M15.6 4.4l-1 1M5.4 14.6l-1 1",
  system: "M3 4h14v10H3zM7 17h6M10 14v3",
  warning: "M10 3.5L17.5 16h-15zM10 8.5v3.5M10 14h.01",
};

/** @param {{name: keyof typeof SHAPES}} props */
export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${SHAPES[name]} /></svg>`;
