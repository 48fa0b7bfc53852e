/** Linked sliders with a constant sum. Two dimensions have one slider between them. */

import { html } from "../html.js";
import { TOTAL, percent, withWeight } from "../simplex.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {{names: readonly string[], descriptions: readonly string[], preference: Preference,
 *   onChange: (preference: number[]) => void}} Props */

const STEP = 10; // one per cent

/** @param {Props} props */
export function Sliders(props) {
  return props.names.length === 2 ? html`<${Between} ...${props} />` : html`<${Linked} ...${props} />`;
}

/** @param {Props} props */
function Between({ names, descriptions, preference, onChange }) {
  const [first = 0, second = 0] = preference;
  return html`<div class="between">
    <div class="ends">
      ${names.map((name, index) => html`<span title=${descriptions[index]}>${name} <b>${percent(preference[index] ?? 0)}%</b></span>`)}
    </div>
    <input
      type="range"
      min="0"
      max=${TOTAL}
      step=${STEP}
      value=${second}
      aria-label=${`From ${names[0]} to ${names[1]}`}
      aria-valuetext=${`${names[0]} ${percent(first)}%, ${names[1]} ${percent(second)}%`}
      onInput=${(/** @type {InputEvent} */ event) => onChange(withWeight(preference, 1, valueOf(event)))}
    />
  </div>`;
}

/** @param {Props} props */
function Linked({ names, descriptions, preference, onChange }) {
  const [locked, setLocked] = useState(() => names.map(() => false));
  // The preference at the start of a drag. The other dimensions keep its proportions during the drag.
  const gesture = useRef({ index: -1, origin: preference, last: preference });
  const change = (/** @type {number} */ index, /** @type {number} */ value) => {
    const { current } = gesture;
    if (current.index !== index || current.last !== preference) {
      gesture.current = { index, origin: preference, last: preference };
    }
    const changed = withWeight(preference, index, value, locked, gesture.current.origin);
    gesture.current.last = changed;
    onChange(changed);
  };
  const lock = (/** @type {number} */ index) =>
    setLocked(locked.map((each, position) => (position === index ? !each : each)));
  return html`<div class="sliders">
    ${names.map((name, index) => {
      const weight = preference[index] ?? 0;
      const isLocked = locked[index] ?? false;
      return html`<div class="slider" key=${name}>
        <label for=${`weight-${index}`} title=${descriptions[index]}>${name}</label>
        <${PercentField} label=${`${name} in per cent`} weight=${weight} isDisabled=${isLocked} onChange=${(/** @type {number} */ value) => change(index, value)} />
        <button
          type="button"
          class="lock"
          aria-pressed=${isLocked}
          aria-label=${`Lock ${name}`}
          title=${isLocked ? "Unlock this weight" : "Keep this weight when others change"}
          onClick=${() => lock(index)}
        >
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <rect x="3" y="7" width="10" height="7" rx="1.5" />
            <path d=${isLocked ? "M5 7V5a3 3 0 0 1 6 0v2" : "M5 7V4a3 3 0 0 1 5.8-1"} />
          </svg>
        </button>
        <input
          id=${`weight-${index}`}
          type="range"
          min="0"
          max=${TOTAL}
          step=${STEP}
          value=${weight}
          disabled=${isLocked}
          aria-valuetext=${`${percent(weight)}%`}
          onInput=${(/** @type {InputEvent} */ event) => change(index, valueOf(event))}
        />
      </div>`;
    })}
  </div>`;
}

/**
 * A number field that takes effect while typing, and is reformatted when it loses the focus.
 * @param {{label: string, weight: number, isDisabled: boolean, onChange: (weight: number) => void}} props
 */
function PercentField({ label, weight, isDisabled, onChange }) {
  const [typed, setTyped] = useState(/** @type {string | null} */ (null));
  useEffect(() => {
    if (typed !== null && Math.round(Number(typed) * 10) !== weight) setTyped(null);
  }, [weight]);
  return html`<span class="percent">
    <input
      type="number"
      min="0"
      max="100"
      step="1"
      inputmode="decimal"
      aria-label=${label}
      disabled=${isDisabled}
      value=${typed ?? percent(weight)}
      onInput=${(/** @type {InputEvent} */ event) => {
        const { value } = /** @type {HTMLInputElement} */ (event.target);
        setTyped(value);
        if (value !== "" && Number.isFinite(Number(value))) onChange(Number(value) * 10);
      }}
      onBlur=${() => setTyped(null)}
    />%</span
  >`;
}

/** @param {InputEvent} event */
const valueOf = (event) => Number(/** @type {HTMLInputElement} */ (event.target).value);
