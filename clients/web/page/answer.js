/** One answer, from its request to its end. */

import { Failure } from "./api.js";

/**
 * @typedef {"waiting" | "streaming" | "done" | "stopped" | "failed"} Status
 * @typedef {object} Answer
 * @property {Status} status
 * @property {import("./api.js").ChatRequest} request the request
 * @property {string} text the text so far
 * @property {Record<string, number> | null} preference the weights in use; null for the base, and before the first token
 * @property {number | null} tokens number of tokens; known at the end
 * @property {number | null} firstTokenS seconds until the first text
 * @property {number | null} tokensPerS tokens per second after the first one
 * @property {string | null} finishReason "stop", or "length" if a limit ended it
 * @property {Failure | null} failure
 */

/** The answer before its request is sent. @param {import("./api.js").ChatRequest} request @returns {Answer} */
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
 * Sends a request and reports every change of its answer. A failure becomes part of the answer and is not thrown.
 * @param {import("./api.js").Api} api
 * @param {import("./api.js").ChatRequest} request
 * @param {(answer: Answer) => void} show called at once, and then for every piece
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

/** @param {Answer} answer @param {number} seconds @returns {number | null} null if the answer is too short to measure */
function speed({ tokens, firstTokenS }, seconds) {
  if (tokens === null || tokens < 2 || firstTokenS === null || seconds <= firstTokenS) return null;
  return (tokens - 1) / (seconds - firstTokenS);
}
