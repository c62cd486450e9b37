// Preact with htm's templates in place of JSX: nothing has to be built.
import { h, render, Fragment } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h);
export { render, Fragment };
export { useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback, useId } from "../vendor/hooks.js";
