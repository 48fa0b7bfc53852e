/** The text of an answer, and its numbers. */

import { isRunning } from "../answer.js";
import { html } from "../html.js";
import { Markdown } from "../markdown.js";
import { words, wordDiff } from "../word_diff.js";

/** @typedef {import("../answer.js").Answer & {stale?: string}} Answer */

/** @param {{answer: Answer | undefined, comparedWith?: string | undefined, onRetry: () => void}} props */
export function AnswerText({ answer, comparedWith, onRetry }) {
  if (answer === undefined) return html`<div class="answer-text"><p class="hint">Not asked yet.</p></div>`;
  const isWaiting = answer.status === "waiting";
  const text = isWaiting ? (answer.stale ?? "") : answer.text;
  const body =
    comparedWith === undefined || isWaiting
      ? html`<${Markdown} text=${text} />`
      : html`<${Difference} before=${comparedWith} after=${text} />`;
  return html`<div class="answer-text" aria-busy=${isRunning(answer)}>
    ${
      isWaiting && !text
        ? html`<p class="hint waiting">Waiting for the first token…</p>`
        : html`<div class=${isWaiting ? "stale" : ""}>${body}</div>`
    }
    ${answer.status === "done" && !text && html`<p class="hint">The model generated no text.</p>`}
    ${
      answer.failure !== null &&
      html`<div class="failure" role="alert">
      <p>${answer.failure.message}</p>
      <button type="button" onClick=${onRetry}>Ask again</button>
    </div>`
    }
  </div>`;
}

/** @param {{before: string, after: string}} props */
function Difference({ before, after }) {
  return html`<p class="difference">
    ${wordDiff(before, after).map(({ kind, text }) =>
      kind === "same" ? text : kind === "added" ? html`<ins>${text}</ins>` : html`<del>${text}</del>`,
    )}
  </p>`;
}

/** @param {{answer: Answer | undefined, at?: string}} props `at` is the preference of the answer, if it differs from the shown one */
export function AnswerNumbers({ answer, at }) {
  if (answer === undefined || answer.status === "failed") return null;
  const { status, text, firstTokenS, tokensPerS, tokens, finishReason } = answer;
  const parts = [
    at && `answered at ${at}`,
    status === "stopped" && "stopped",
    finishReason === "length" && "cut off at its token limit",
    text && `${wordCount(text)} words`,
    tokens !== null && `${tokens} tokens`,
    firstTokenS !== null && `${milliseconds(firstTokenS)} to first token`,
    tokensPerS !== null && `${tokensPerS < 10 ? tokensPerS.toFixed(1) : Math.round(tokensPerS)} tokens/s`,
  ].filter(Boolean);
  return html`<p class="numbers">${parts.map((part) => html`<span key=${part}>${part}</span>`)}</p>`;
}

/** @param {string} text */
export const wordCount = (text) => words(text).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;

/** @param {number} seconds */
const milliseconds = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
