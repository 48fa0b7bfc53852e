/** One answer, from being asked for to its end. */

import { Failure } from "./api.js";

/**
 * @typedef {"waiting" | "streaming" | "done" | "stopped" | "failed"} Status
 * @typedef {object} Answer
 * @property {Status} status
 * @property {import("./api.js").ChatRequest} request what was asked
 * @property {string} text what has come so far
 * @property {Record<string, number> | null} preference what the server used; null for the base, and before the first token
 * @property {number | null} tokens how many it has; known at the end
 * @property {number | null} firstTokenS seconds until the first text
 * @property {number | null} tokensPerS after the first one
 * @property {string | null} finishReason "stop", or "length" if it was cut off
 * @property {Failure | null} failure
 */

/** As it is before anything was sent. @param {import("./api.js").ChatRequest} request @returns {Answer} */
export const unanswered = (request) => ({
  status: "waiting",
  request,
  text: "",
  preference: null,
  tokens: null,
  firstTokenS: null,
  tokensPerS: null,
  finishReason: null,
  failure: null,
});

/** @param {Answer | undefined} answer */
export const isRunning = (answer) => answer?.status === "waiting" || answer?.status === "streaming";

/**
 * Asks, and shows every change of the answer; never throws.
 * @param {import("./api.js").Api} api
 * @param {import("./api.js").ChatRequest} request
 * @param {(answer: Answer) => void} show called at once, then for every piece
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>} the finished answer
 */
export async function ask(api, request, show, signal) {
  let answer = unanswered(request);
  const update = (/** @type {Partial<Answer>} */ change) => {
    answer = { ...answer, ...change };
    show(answer);
  };
  update({});
  const begin = performance.now();
  const elapsedS = () => (performance.now() - begin) / 1000;
  try {
    for await (const chunk of api.stream(request, signal)) {
      const choice = chunk.choices[0];
      const piece = choice?.delta.content ?? "";
      update({
        status: "streaming",
        preference: chunk.preference,
        text: answer.text + piece,
        firstTokenS: answer.firstTokenS ?? (piece ? elapsedS() : null),
        finishReason: choice?.finish_reason ?? answer.finishReason,
        tokens: chunk.usage?.completion_tokens ?? answer.tokens,
      });
    }
    update({ status: "done", tokensPerS: speed(answer, elapsedS()) });
  } catch (error) {
    if (signal.aborted) update({ status: "stopped" });
    else if (error instanceof Failure) update({ status: "failed", failure: error });
    else throw error;
  }
  return answer;
}

/** @param {Answer} answer @param {number} seconds @returns {number | null} null for answers too short to tell */
function speed({ tokens, firstTokenS }, seconds) {
  if (tokens === null || tokens < 2 || firstTokenS === null || seconds <= firstTokenS) return null;
  return (tokens - 1) / (seconds - firstTokenS);
}
