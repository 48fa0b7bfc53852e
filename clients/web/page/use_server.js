/** The state of the server: loaded once, and checked periodically. */

import { Api, Failure } from "./api.js";
import { fromObject } from "./simplex.js";
import { recall, remember } from "./storage.js";
import { useEffect, useMemo, useState } from "./vendor/hooks.js";

/** @typedef {import("./view_state.js").Space} Space */
/**
 * @typedef {object} Server
 * @property {Api} api
 * @property {Space | null} space null until it is loaded
 * @property {import("./api.js").Evaluation | null} evaluation
 * @property {Failure | null} failure why the server cannot be used now; the page retries automatically
 * @property {boolean} needsKey the server needs a key, or the visitor has given one
 * @property {(key: string) => void} setKey
 */

const KEY = "panacea.key"; // in sessionStorage, which ends with the tab; never part of a link
const WATCH_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * @param {boolean} busy answers are streaming, so the server need not be checked
 * @param {boolean} inDoubt an answer has failed, so the server is checked at once
 * @returns {Server}
 */
export function useServer(busy, inDoubt) {
  const [key, setKey] = useState(() => recall("sessionStorage", KEY));
  const [known, setKnown] = useState(
    /** @type {{space: Space, evaluation: import("./api.js").Evaluation | null} | null} */ (null),
  );
  const [failure, setFailure] = useState(/** @type {Failure | null} */ (null));
  const api = useMemo(() => new Api(key), [key]);

  useEffect(() => {
    if (failure?.kind === "key" || (known !== null && busy)) return undefined;
    const controller = new AbortController();
    let failures = failure === null ? 0 : 1;
    /** @type {number | undefined} */
    let timer;
    const look = async () => {
      try {
        await api.ready(controller.signal);
        if (known === null || failures > 0) setKnown(await load(api, controller.signal));
        failures = 0;
        setFailure(null);
      } catch (error) {
        if (controller.signal.aborted) return;
        if (!(error instanceof Failure)) throw error;
        failures += 1;
        setFailure(error);
      }
      timer = window.setTimeout(look, failures ? (RETRY_MS[failures - 1] ?? WATCH_MS) : WATCH_MS);
    };
    // If the server is loaded and works, the first check can wait.
    if (known === null || failures > 0 || inDoubt) look();
    else timer = window.setTimeout(look, WATCH_MS);
    return () => {
      controller.abort();
      window.clearTimeout(timer);
    };
  }, [api, busy, inDoubt, known === null, failure?.kind === "key"]);

  return {
    api,
    space: known?.space ?? null,
    evaluation: known?.evaluation ?? null,
    failure,
    needsKey: key !== null || failure?.kind === "key",
    setKey: (given) => {
      remember("sessionStorage", KEY, given);
      setFailure(null);
      setKey(given);
    },
  };
}

/** @param {Api} api @param {AbortSignal} signal */
async function load(api, signal) {
  const [models, preferences, evaluation] = await Promise.all([
    api.models(signal),
    api.preferences(signal),
    api.evaluation(signal),
  ]);
  const model = models[0];
  if (model === undefined) throw new Failure("broken", "The server lists no model.");
  const names = preferences.dimensions.map(({ name }) => name);
  /** @type {Space} */
  const space = {
    model: model.id,
    names,
    descriptions: preferences.dimensions.map(({ description }) => description),
    start: fromObject(preferences.default, names),
    presets: Object.entries(preferences.presets).map(([name, weights]) => ({
      name,
      preference: fromObject(weights, names),
    })),
    prompts: preferences.example_prompts,
  };
  return { space, evaluation };
}
