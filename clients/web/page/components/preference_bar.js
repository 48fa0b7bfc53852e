/** A preference at a glance: a bar in its proportions, and words. */

import { html } from "../html.js";
import { TOTAL, described } from "../simplex.js";

/** @param {{preference: import("../simplex.js").Preference | null, names: readonly string[]}} props */
export function PreferenceBar({ preference, names }) {
  return html`<div class="preference-bar">
    <div class="bar" aria-hidden="true">
      ${(preference ?? []).map(
        (weight, index) =>
          weight > 0 &&
          html`<span class=${`tint-${index % 4}`} style=${{ width: `${(weight / TOTAL) * 100}%` }} title=${names[index]}></span>`,
      )}
    </div>
    <span class="words">${preference === null ? "bare base model" : described(preference, names) || "the adapter as it is"}</span>
  </div>`;
}
