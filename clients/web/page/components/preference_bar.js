/** A preference as a bar with its proportions, and in words. */

import { html } from "../html.js";
import { TOTAL, described } from "../simplex.js";

/** @param {{preference: import("../simplex.js").Preference | null, names: readonly string[]}} props */
export function PreferenceBar({ preference, names }) {
  const words =
    names.length === 0 ? "no dimensions" : preference === null ? "bare base model" : described(preference, names);
  return html`<div class="preference-bar">
    <div class="bar" aria-hidden="true">
      ${(preference ?? []).map(
        (weight, index) =>
          weight > 0 &&
          html`<span class=${`tint-${index % 4}`} style=${{ width: `${(weight / TOTAL) * 100}%` }} title=${names[index]}></span>`,
      )}
    </div>
    <span class="words">${words}</span>
  </div>`;
}
