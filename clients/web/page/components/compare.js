/** The same question at several preferences, side by side. */

import { isRunning } from "../answer.js";
import { html } from "../html.js";
import { described, fromObject, isSame } from "../simplex.js";
import { useState } from "../vendor/hooks.js";
import { FEWEST_COLUMNS, MOST_COLUMNS } from "../view_state.js";
import { AnswerNumbers, AnswerText } from "./answer_text.js";
import { IconButton } from "./icon.js";
import { PreferenceBar } from "./preference_bar.js";

/** @typedef {import("../view_state.js").Column} Column */

/** The key of a column's answer. @param {Column} column */
export const columnKey = ({ id }) => `column-${id}`;

/**
 * The preference of an answer, if its column has changed since; else "".
 * @param {import("./answer_text.js").Answer | undefined} answer @param {import("../simplex.js").Preference | null} preference
 * @param {readonly string[]} names
 */
function elsewhere(answer, preference, names) {
  if (answer === undefined || isRunning(answer) || answer.failure !== null) return "";
  const asked = answer.request.preference ? fromObject(answer.request.preference, names) : null;
  return isSame(asked, preference) || names.length === 0 ? "" : described(asked, names);
}

/**
 * @param {{columns: readonly Column[], chosen: number, pinned: number | null, names: readonly string[],
 *   answers: import("../use_answers.js").Answers, canAsk: boolean, onChoose: (index: number) => void,
 *   onPin: (id: number | null) => void, onAdd: () => void, onRemove: (id: number) => void,
 *   onAsk: (column: Column) => void, onCopy: (column: Column) => void}} props
 */
export function Compare({
  columns,
  chosen,
  pinned,
  names,
  answers,
  canAsk,
  onChoose,
  onPin,
  onAdd,
  onRemove,
  onAsk,
  onCopy,
}) {
  const [expanded, setExpanded] = useState(/** @type {number | null} */ (null));
  const pinnedColumn = columns.find(({ id }) => id === pinned);
  const pinnedText = pinnedColumn && answers.all.get(columnKey(pinnedColumn))?.text;
  const one = (/** @type {Column} */ column, /** @type {number} */ index) => {
    const { id, preference } = column;
    const answer = answers.all.get(columnKey(column));
    const isExpanded = id === expanded;
    const label = String(index + 1);
    const classes = ["card", index === chosen && "chosen", isExpanded && "expanded"].filter(Boolean).join(" ");
    return html`<article key=${id} class=${classes} aria-label=${`Answer ${label}`}>
      <header>
        <button type="button" class="steer" aria-pressed=${index === chosen} title="Steer this answer" onClick=${() => onChoose(index)}>
          <span class="badge">${label}</span>
          <${PreferenceBar} preference=${preference} names=${names} />
        </button>
      </header>
      <${AnswerText} answer=${answer} comparedWith=${id === pinned ? undefined : pinnedText || undefined} onRetry=${() => onAsk(column)} />
      <footer>
        <${AnswerNumbers} answer=${answer} at=${elsewhere(answer, preference, names)} />
        <div class="tools">
          <${IconButton} icon="pin" label=${id === pinned ? `Unpin answer ${label}` : `Compare the others with answer ${label}`} isPressed=${id === pinned} onClick=${() => onPin(id === pinned ? null : id)} />
          <${IconButton} icon=${isExpanded ? "shrink" : "expand"} label=${isExpanded ? `Shrink answer ${label}` : `Expand answer ${label}`} isPressed=${isExpanded} onClick=${() => setExpanded(isExpanded ? null : id)} />
          <${IconButton} icon="code" label=${`Copy request ${label} as code`} onClick=${() => onCopy(column)} />
          <${IconButton} icon="close" label=${`Remove answer ${label}`} isDisabled=${columns.length <= FEWEST_COLUMNS} onClick=${() => onRemove(id)} />
        </div>
      </footer>
    </article>`;
  };
  return html`<div class="compare">
    <div class=${`columns of-${columns.length}`}>${columns.map(one)}</div>
    <div class="row">
      ${
        columns.length < MOST_COLUMNS &&
        html`<button type="button" disabled=${!canAsk} onClick=${onAdd}>Add an answer</button>`
      }
      ${
        pinnedColumn &&
        html`<p class="hint">
        Compared with answer ${columns.indexOf(pinnedColumn) + 1}: <ins>only in this answer</ins>, <del>only in answer ${columns.indexOf(pinnedColumn) + 1}</del>.
      </p>`
      }
    </div>
  </div>`;
}
