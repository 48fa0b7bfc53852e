/** The part of the server's HTTP API that the page uses. Its errors say what is wrong and what to do. */

import { serverEvents } from "./event_stream.js";

/**
 * @typedef {{name: string, description: string}} Dimension
 * @typedef {{dimensions: Dimension[], default: Record<string, number>, presets: Record<string, Record<string, number>>,
 *   example_prompts: string[]}} Preferences
 * @typedef {{preference: number[], rewards: number[], standard_errors: number[], mean_words: number, faithful: number | null,
 *   non_dominated: boolean}} EvaluationPoint
 * @typedef {{temperature: number, samples_per_prompt: number, points: EvaluationPoint[]}} EvaluationSweep
 * @typedef {{model: string, created: string, dimensions: string[], prompts: number, sweeps: EvaluationSweep[]}} Evaluation
 * @typedef {{id: string, preference: Record<string, number> | null}} ModelCard
 * @typedef {{role: "system" | "user" | "assistant", content: string}} Message
 * @typedef {{model: string, messages: Message[], preference?: Record<string, number>, temperature?: number,
 *   max_tokens?: number, seed?: number, top_p?: number}} ChatRequest
 * @typedef {{prompt_tokens: number, completion_tokens: number}} Usage
 * @typedef {{delta: {content?: string}, finish_reason: string | null}} ChunkChoice
 * @typedef {{preference: Record<string, number> | null, choices: ChunkChoice[], usage?: Usage | null}} Chunk
 */

/** @typedef {"refused" | "key" | "lost" | "busy" | "broken"} FailureKind */

/** The reason why an answer or the server is not available. */
export class Failure extends Error {
  /**
   * @param {FailureKind} kind "refused": the server rejected the request. "key": it needs an API key. "lost": it cannot
   *   be reached. "busy": it cannot serve now. "broken": the answer is incomplete or invalid.
   * @param {string} message what is wrong and what to do, in full sentences
   */
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export class Api {
  /** @param {string | null} key */
  constructor(key) {
    this.key = key;
  }

  /** @param {AbortSignal} [signal] @returns {Promise<ModelCard[]>} */
  async models(signal) {
    return (await this.#read("v1/models", signal)).data;
  }

  /** @param {AbortSignal} [signal] @returns {Promise<Preferences>} */
  preferences(signal) {
    return this.#read("v1/preferences", signal);
  }

  /** The adapter's evaluation; null if there is none. @param {AbortSignal} [signal] @returns {Promise<Evaluation | null>} */
  async evaluation(signal) {
    const response = await this.#fetch("v1/evaluation", { signal: signal ?? null });
    if (response.status === 404) return null;
    return json(await checked(response));
  }

  /** Resolves if the server can serve. Throws a `Failure` otherwise. @param {AbortSignal} [signal] @returns {Promise<void>} */
  async ready(signal) {
    await this.#read("ready", signal);
  }

  /**
   * The chunks of an answer as they arrive. The last one has the usage.
   * @param {ChatRequest} request @param {AbortSignal} signal also ends the answer on the server
   * @returns {AsyncGenerator<Chunk>}
   */
  async *stream(request, signal) {
    const response = await checked(
      await this.#fetch("v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
        signal,
      }),
    );
    try {
      for await (const { event, data } of serverEvents(/** @type {ReadableStream} */ (response.body))) {
        if (data === "[DONE]") return;
        if (event === "error") throw new Failure("broken", `The answer is incomplete: ${messageOf(data)} Ask again.`);
        yield JSON.parse(data);
      }
    } catch (error) {
      if (error instanceof Failure || signal.aborted) throw error;
      throw new Failure("broken", "The connection was lost before the answer was complete. Ask again.");
    }
    throw new Failure("broken", "The stream ended before the answer was complete. Ask again.");
  }

  /** @param {string} path @param {AbortSignal | undefined} signal */
  async #read(path, signal) {
    return json(await checked(await this.#fetch(path, { signal: signal ?? null })));
  }

  /** @param {string} path @param {RequestInit} options */
  async #fetch(path, options) {
    const headers = new Headers(options.headers);
    if (this.key) headers.set("authorization", `Bearer ${this.key}`);
    try {
      // A relative URL, so that the page works behind a proxy that adds a prefix.
      return await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Failure("lost", `The server at ${location.host} does not answer. Check that it is running.`);
    }
  }
}

/** @param {Response} response */
async function checked(response) {
  if (response.ok) return response;
  const message = messageOf(await response.text().catch(() => ""));
  const id = response.headers.get("x-request-id");
  const trace = id ? ` (request ${id})` : "";
  if (response.status === 401)
    throw new Failure("key", "This server needs an API key, and it did not accept this one.");
  if (response.status === 429)
    throw new Failure("busy", `The server is busy: ${message} Try again in a moment.${trace}`);
  if (response.status >= 500)
    throw new Failure("busy", `The server cannot answer now: ${message} Try again soon.${trace}`);
  throw new Failure("refused", `The server rejected this request: ${message}${trace}`);
}

/** @param {Response} response */
async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new Failure(
      "broken",
      `The response from ${location.host} is not that of a Panacea server. Check the address.`,
    );
  }
}

/** The message of an error response, as a sentence. @param {string} body */
function messageOf(body) {
  let message = "";
  try {
    message = String(JSON.parse(body).error.message);
  } catch {
    message = body.slice(0, 200) || "no reason was given";
  }
  return /[.!?]$/.test(message) ? message : `${message}.`;
}
