/** The same question along an edge or over the triangle. Each answer is placed at its preference. */

import { isRunning } from "../answer.js";
import { html } from "../html.js";
import { MOST_POINTS, rangeRows } from "../view_state.js";
import { AnswerNumbers, AnswerText } from "./answer_text.js";
import { PreferenceBar } from "./preference_bar.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {import("../view_state.js").Range} Range */

export const RANGE = "range-";
/** The key of the answer at this preference. @param {Preference} preference */
export const rangeKey = (preference) => RANGE + preference.join("-");

/**
 * @param {{range: Range, names: readonly string[], answers: import("../use_answers.js").Answers,
 *   onRange: (range: Range) => void, onAsk: (preferences: readonly Preference[]) => void,
 *   onSteer: (preference: Preference) => void}} props
 */
export function RangeView({ range, names, answers, onRange, onAsk, onSteer }) {
  const rows = rangeRows(range, names.length);
  const all = rows.flat();
  const found = all.map((preference) => answers.all.get(rangeKey(preference)));
  const asked = found.filter((answer) => answer !== undefined);
  const finished = asked.filter((answer) => !isRunning(answer));
  return html`<div class="range">
    <${RangeChoice} range=${range} names=${names} onRange=${onRange} />
    ${
      asked.length > 0 &&
      html`<div class="progress">
      <progress max=${all.length} value=${finished.length} aria-label="Answers finished"></progress>
      <span>${finished.length} of ${all.length}</span>
    </div>`
    }
    <div class=${"over" in range ? "places over-triangle" : "places along-edge"}>
      ${rows.map(
        (row, index) =>
          html`<div class="places-row" key=${index}>
            ${row.map((preference) => {
              const answer = answers.all.get(rangeKey(preference));
              return html`<article class="card place" key=${rangeKey(preference)}>
                <header><${PreferenceBar} preference=${preference} names=${names} /></header>
                <${AnswerText} answer=${answer} onRetry=${() => onAsk([preference])} />
                <${AnswerNumbers} answer=${answer} />
                <button type="button" class="quiet" onClick=${() => onSteer(preference)}>Compare from here</button>
              </article>`;
            })}
          </div>`,
      )}
    </div>
  </div>`;
}

/** @param {{range: Range, names: readonly string[], onRange: (range: Range) => void}} props */
function RangeChoice({ range, names, onRange }) {
  const { count } = range;
  const [from, to] = "over" in range ? [0, 1] : [range.from, range.to];
  const ways = names.flatMap((name, first) =>
    names
      .slice(first + 1)
      .map((other, offset) => ({ text: `${name} to ${other}`, from: first, to: first + 1 + offset })),
  );
  const choose = (/** @type {string} */ value) => {
    const way = ways[Number(value)];
    onRange(way === undefined ? { over: "triangle", count } : { from: way.from, to: way.to, count });
  };
  const chosen = "over" in range ? "triangle" : String(ways.findIndex((way) => way.from === from && way.to === to));
  const valueOf = (/** @type {Event} */ event) => /** @type {HTMLSelectElement} */ (event.target).value;
  return html`<div class="row">
    <label>
      Range
      <select value=${chosen} onChange=${(/** @type {Event} */ event) => choose(valueOf(event))}>
        ${names.length === 3 && html`<option value="triangle">the whole triangle</option>`}
        ${ways.map(({ text }, index) => html`<option key=${text} value=${String(index)}>${text}</option>`)}
      </select>
    </label>
    <label>
      Points on a side
      <select value=${String(count)} onChange=${(/** @type {Event} */ event) => onRange({ ...range, count: Number(valueOf(event)) })}>
        ${Array.from({ length: MOST_POINTS - 1 }, (_, index) => index + 2).map(
          (each) => html`<option key=${each} value=${String(each)}>${each}</option>`,
        )}
      </select>
    </label>
  </div>`;
}
