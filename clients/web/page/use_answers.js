/** All answers on the page, by key, and their streams. */

import { ask, isRunning, unanswered } from "./answer.js";
import { useMemo, useRef, useState } from "./vendor/hooks.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./api.js").ChatRequest} ChatRequest */

/**
 * Number of concurrent streams. Browsers open six connections to a server over HTTP/1.1. Further streams would wait inside
 * the browser, and the measured time to their first token would include this wait.
 */
const STREAMS = 6;
const REDRAW_MS = 30;

/**
 * @typedef {object} Answers
 * @property {ReadonlyMap<string, Answer & {stale?: string}>} all by key; `stale` is the old text until a new one arrives
 * @property {boolean} running
 * @property {(key: string, request: ChatRequest) => void} start sends a request, and replaces this key's earlier one
 * @property {(keys?: Iterable<string>) => void} stop ends these answers; without `keys`, all of them
 * @property {(keys: Iterable<string>) => void} forget ends and removes these answers
 */

/** @param {import("./api.js").Api} api @returns {Answers} */
export function useAnswers(api) {
  const [all, setAll] = useState(/** @type {ReadonlyMap<string, Answer & {stale?: string}>} */ (new Map()));
  const latestApi = useRef(api);
  latestApi.current = api;
  const actions = useMemo(() => createActions(() => latestApi.current, setAll), []);
  return { all, running: [...all.values()].some(isRunning), ...actions };
}

/**
 * @param {() => import("./api.js").Api} api
 * @param {(all: ReadonlyMap<string, Answer & {stale?: string}>) => void} publish
 */
function createActions(api, publish) {
  /** @type {Map<string, Answer & {stale?: string}>} */
  const answers = new Map();
  /** @type {Map<string, AbortController>} */
  const controllers = new Map();
  /** @type {(() => void)[]} */
  const queue = [];
  let active = 0;
  let redraw = 0;

  const drawNow = () => {
    window.clearTimeout(redraw);
    redraw = 0;
    publish(new Map(answers));
  };

  const draw = () => {
    // Tokens arrive faster than people read. A timer also runs in hidden tabs, unlike animation frames.
    redraw ||= window.setTimeout(drawNow, REDRAW_MS);
  };

  const next = () => {
    while (active < STREAMS && queue.length > 0) {
      active += 1;
      queue.shift()?.();
    }
  };

  const start = (/** @type {string} */ key, /** @type {ChatRequest} */ request) => {
    controllers.get(key)?.abort();
    const controller = new AbortController();
    controllers.set(key, controller);
    const before = answers.get(key);
    const stale = before?.text || before?.stale;
    const show = (/** @type {Answer} */ answer) => {
      if (controllers.get(key) !== controller) return; // restarted or forgotten
      answers.set(key, stale !== undefined && answer.status === "waiting" ? { ...answer, stale } : answer);
      draw();
    };
    show(unanswered(request));
    drawNow(); // immediate feedback
    queue.push(() => {
      ask(api(), request, show, controller.signal).finally(() => {
        active -= 1;
        next();
      });
    });
    next();
  };

  const stop = (/** @type {Iterable<string>} */ keys = controllers.keys()) => {
    for (const key of keys) controllers.get(key)?.abort();
  };

  const forget = (/** @type {Iterable<string>} */ keys) => {
    for (const key of keys) {
      controllers.get(key)?.abort();
      controllers.delete(key);
      answers.delete(key);
    }
    draw();
  };

  return { start, stop, forget };
}
