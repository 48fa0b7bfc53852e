/** The input field for questions, with example questions. */

import { html } from "../html.js";
import { useRef } from "../vendor/hooks.js";

const PROMPTS_SHOWN = 4;

/**
 * @param {{prompt: string, prompts: readonly string[], action: string, isRunning: boolean, isDisabled: boolean,
 *   onPrompt: (prompt: string) => void, onAsk: (prompt: string) => void, onStop: () => void,
 *   placeholder?: string}} props
 */
export function PromptBox({ prompt, prompts, action, isRunning, isDisabled, onPrompt, onAsk, onStop, placeholder }) {
  const form = useRef(/** @type {HTMLFormElement | null} */ (null));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (prompt.trim() && !isDisabled) onAsk(prompt);
  };
  const type = (/** @type {KeyboardEvent} */ event) => {
    // While an input method composes a word, Enter confirms the word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.current?.requestSubmit();
    }
  };
  return html`<form class="prompt-box" ref=${form} onSubmit=${submit}>
    <div class="field">
      <textarea
        rows="2"
        aria-label="Question"
        placeholder=${placeholder ?? "Ask anything"}
        value=${prompt}
        onInput=${(/** @type {InputEvent} */ event) => onPrompt(/** @type {HTMLTextAreaElement} */ (event.target).value)}
        onKeyDown=${type}
      ></textarea>
      <div class="actions">
        ${isRunning && html`<button type="button" class="stop" onClick=${onStop}>Stop</button>`}
        <button type="submit" class="primary" disabled=${isDisabled || !prompt.trim()}>${action}</button>
      </div>
    </div>
    ${
      prompts.length > 0 &&
      html`<div class="chips examples" role="group" aria-label="Example questions">
      ${prompts.slice(0, PROMPTS_SHOWN).map(
        (each) =>
          html`<button type="button" key=${each} disabled=${isDisabled} onClick=${() => {
            onPrompt(each);
            onAsk(each);
          }}>${each}</button>`,
      )}
    </div>`
    }
  </form>`;
}
