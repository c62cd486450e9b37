// Doing something at once, but not all the time.

/**
 * What follows within `ms` of the last time is done together when they are over.
 * @param {() => void} action
 * @param {number} ms
 */
export function throttled(action, ms) {
  let last = -Infinity;
  /** @type {number | undefined} */
  let timer;
  const run = () => {
    timer = undefined;
    last = performance.now();
    action();
  };
  const call = () => {
    if (timer !== undefined) return;
    const wait = last + ms - performance.now();
    if (wait > 0) timer = window.setTimeout(run, wait);
    else run();
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}
