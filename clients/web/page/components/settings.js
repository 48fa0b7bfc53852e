/** The settings of requests: system prompt and sampling parameters. */

import { html } from "../html.js";
import { number } from "../view_state.js";
import { useState } from "../vendor/hooks.js";

/** @typedef {import("../view_state.js").Settings} Values */

/** @param {{settings: Values, onChange: (settings: Values) => void}} props */
export function Settings({ settings, onChange }) {
  const set = (/** @type {Partial<Values>} */ change) => onChange({ ...settings, ...change });
  return html`<details class="settings">
    <summary>Settings</summary>
    <label class="wide">
      System prompt
      <textarea
        rows="2"
        value=${settings.system}
        onInput=${(/** @type {InputEvent} */ event) => set({ system: /** @type {HTMLTextAreaElement} */ (event.target).value })}
      ></textarea>
    </label>
    <div class="fields">
      <${NumberField} label="Temperature" hint="0 to 2; 0 is greedy, so only the preference changes the answer" value=${settings.temperature} parse=${number(0, 2)} onChange=${(/** @type {number | null} */ temperature) => set({ temperature })} />
      <${NumberField} label="Top p" hint="0.01 to 1" value=${settings.topP} parse=${number(0.01, 1)} onChange=${(/** @type {number | null} */ topP) => set({ topP })} />
      <${NumberField} label="Max tokens" hint="1 or more" value=${settings.maxTokens} parse=${number(1, 1e6, true)} onChange=${(/** @type {number | null} */ maxTokens) => set({ maxTokens })} />
      <${NumberField} label="Seed" hint="a whole number" value=${settings.seed} parse=${number(0, Number.MAX_SAFE_INTEGER, true)} onChange=${(/** @type {number | null} */ seed) => set({ seed })} />
    </div>
  </details>`;
}

/**
 * A number field. Empty selects the server's default. An invalid value is marked, and the last valid value stays.
 * @param {{label: string, hint: string, value: number | null, parse: (text: string) => number | undefined,
 *   onChange: (value: number | null) => void}} props
 */
function NumberField({ label, hint, value, parse, onChange }) {
  const [typed, setTyped] = useState(/** @type {string | null} */ (null));
  const shown = typed ?? (value === null ? "" : String(value));
  const isWrong = shown.trim() !== "" && parse(shown) === undefined;
  return html`<label title=${hint}>
    ${label}
    <input
      type="text"
      inputmode="decimal"
      placeholder="auto"
      value=${shown}
      aria-invalid=${isWrong}
      onInput=${(/** @type {InputEvent} */ event) => {
        const text = /** @type {HTMLInputElement} */ (event.target).value;
        setTyped(text);
        const parsed = parse(text);
        if (text.trim() === "") onChange(null);
        else if (parsed !== undefined) onChange(parsed);
      }}
      onBlur=${() => setTyped(null)}
    />
    ${isWrong && html`<span class="wrong">${hint}</span>`}
  </label>`;
}
