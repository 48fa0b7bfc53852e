/** A conversation in which every turn has its own preference. */

import { isRunning } from "../answer.js";
import { html } from "../html.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { AnswerNumbers, AnswerText } from "./answer_text.js";
import { IconButton } from "./icon.js";
import { PreferenceBar } from "./preference_bar.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {{id: string, question: string, preference: Preference | null}} Turn */

/**
 * @param {{turns: readonly Turn[], names: readonly string[], answers: import("../use_answers.js").Answers,
 *   onResend: (index: number, question: string) => void, onCopy: (index: number) => void}} props `onResend` repeats a turn
 *   with the current preference, and removes all later turns
 */
export function Chat({ turns, names, answers, onResend, onCopy }) {
  const end = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (turns.length > 0) end.current?.scrollIntoView?.({ block: "nearest" });
  }, [turns.length]);
  return html`<div class="chat" role="log" aria-label="Conversation">
    ${
      turns.length === 0 &&
      html`<p class="hint">Each turn uses the preference at the time of its question. You can change it between turns.</p>`
    }
    ${turns.map((turn, index) => {
      const answer = answers.all.get(turn.id);
      return html`<div class="turn" key=${turn.id}>
        <${Question} question=${turn.question} number=${index + 1} onResend=${(/** @type {string} */ question) => onResend(index, question)} />
        <article class="reply" aria-label=${`Answer ${index + 1}`}>
          <div class="reply-head">
            <${PreferenceBar} preference=${turn.preference} names=${names} />
            <div class="tools">
              <${IconButton} icon="again" label=${`Answer question ${index + 1} again with the current preference`} isDisabled=${isRunning(answer)} onClick=${() => onResend(index, turn.question)} />
              <${IconButton} icon="code" label=${`Copy request ${index + 1} as code`} onClick=${() => onCopy(index)} />
            </div>
          </div>
          <${AnswerText} answer=${answer} onRetry=${() => onResend(index, turn.question)} />
          <${AnswerNumbers} answer=${answer} />
        </article>
      </div>`;
    })}
    <div ref=${end}></div>
  </div>`;
}

/** @param {{question: string, number: number, onResend: (question: string) => void}} props */
function Question({ question, number, onResend }) {
  const [edited, setEdited] = useState(/** @type {string | null} */ (null));
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useEffect(() => {
    if (edited !== null) field.current?.focus();
  }, [edited === null]);
  if (edited === null) {
    return html`<div class="question">
      <p>${question}</p>
      <${IconButton} icon="edit" label=${`Edit question ${number}`} onClick=${() => setEdited(question)} />
    </div>`;
  }
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!edited.trim()) return;
    setEdited(null);
    onResend(edited);
  };
  return html`<form class="question editing" onSubmit=${send}>
    <textarea
      ref=${field}
      aria-label=${`Question ${number}`}
      rows="2"
      value=${edited}
      onInput=${(/** @type {InputEvent} */ event) => setEdited(/** @type {HTMLTextAreaElement} */ (event.target).value)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Escape" && setEdited(null)}
    ></textarea>
    <div class="row">
      <button type="submit" class="primary" disabled=${!edited.trim()}>Send again</button>
      <button type="button" onClick=${() => setEdited(null)}>Cancel</button>
    </div>
  </form>`;
}
