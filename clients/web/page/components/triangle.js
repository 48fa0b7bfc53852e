/** The triangle of three dimensions, with a draggable point for each preference. */

import { html } from "../html.js";
import { CORNERS, TOTAL, described, fromPoint, toPoint } from "../simplex.js";
import { useRef } from "../vendor/hooks.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {{label: string, preference: Preference | null}} Handle null is the bare base model, which has no point */
/** @typedef {{preference: Preference, isDone: boolean}} Mark a point that cannot be moved */

const SIDE = 100; // units of the drawing
const REACH = 9; // a press within this distance of a handle selects it
const LONGEST_NAME = 16;
const STEP = 0.05; // part of a side that an arrow key moves; with Shift a fifth of it

const [TOP, LEFT, RIGHT] = CORNERS.map(({ x, y }) => ({ x: x * SIDE, y: y * SIDE }));

/**
 * @param {{names: readonly string[], handles: readonly Handle[], chosen: number, marks?: readonly Mark[],
 *   onChoose?: (index: number) => void, onChange?: (preference: number[]) => void}} props without `onChange` the triangle
 *   cannot be changed; `onChange` moves the chosen handle
 */
export function Triangle({ names, handles, chosen, marks = [], onChoose, onChange }) {
  const drawing = useRef(/** @type {SVGSVGElement | null} */ (null));

  const place = (/** @type {PointerEvent} */ event) => {
    const matrix = drawing.current?.getScreenCTM()?.inverse();
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    return { x: x / SIDE, y: y / SIDE };
  };
  const press = (/** @type {PointerEvent} */ event) => {
    if (event.button !== 0 || !onChange) return;
    const at = place(event);
    let [nearest, gap] = [chosen, REACH / SIDE];
    handles.forEach(({ preference }, index) => {
      if (preference === null) return;
      const { x, y } = toPoint(preference);
      const away = Math.hypot(x - at.x, y - at.y) - (index === chosen ? 1e-6 : 0); // at equal distance the chosen one wins
      if (away < gap) [nearest, gap] = [index, away];
    });
    drawing.current?.setPointerCapture(event.pointerId);
    if (nearest !== chosen) onChoose?.(nearest);
    else onChange(fromPoint(at));
    event.preventDefault();
    /** @type {SVGElement | null | undefined} */ (drawing.current?.querySelector(`[data-handle="${nearest}"]`))?.focus({
      preventScroll: true,
    });
  };
  const drag = (/** @type {PointerEvent} */ event) => {
    if (drawing.current?.hasPointerCapture(event.pointerId)) onChange?.(fromPoint(place(event)));
  };
  const type = (/** @type {KeyboardEvent} */ event, /** @type {Preference} */ preference) => {
    const step = event.shiftKey ? STEP / 5 : STEP;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (!(event.key in moves)) return;
    const [dx = 0, dy = 0] = moves[/** @type {keyof typeof moves} */ (event.key)];
    const { x, y } = toPoint(preference);
    onChange?.(fromPoint({ x: x + dx, y: y + dy }));
    event.preventDefault();
  };

  const handle = (/** @type {Handle} */ { label, preference }, /** @type {number} */ index) => {
    if (preference === null) return null;
    const isChosen = index === chosen;
    return html`<g
      key=${index}
      class=${isChosen ? "handle chosen" : "handle"}
      data-handle=${index}
      transform=${at(preference)}
      role="slider"
      tabindex="0"
      aria-label=${`Preference${label && ` ${label}`}: ${names[0]}; arrow keys move it`}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${Math.round(((preference[0] ?? 0) / TOTAL) * 100)}
      aria-valuetext=${described(preference, names)}
      onFocus=${() => isChosen || onChoose?.(index)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => isChosen && type(event, preference)}
    >
      <circle class="reach" r=${REACH} />
      ${dot(label)}
    </g>`;
  };
  const chosenHandle = handles[chosen];
  const chosenPreference = chosenHandle?.preference ?? null;
  return html`<svg
    ref=${drawing}
    class=${onChange ? "triangle" : "triangle fixed"}
    viewBox="-14 -18 128 122"
    role="group"
    aria-label=${`Triangle of ${names.join(", ")}`}
    onPointerDown=${press}
    onPointerMove=${drag}
  >
    <path class="face" d=${`M${TOP?.x} ${TOP?.y} L${LEFT?.x} ${LEFT?.y} L${RIGHT?.x} ${RIGHT?.y} Z`} />
    ${[0.25, 0.5, 0.75].map((part) => html`<path class="grid" d=${gridLines(part)} />`)}
    ${CORNERS.map((corner, index) => {
      const weight = chosenPreference?.[index] ?? 0;
      const isTop = index === 0;
      // The lower names are aligned with the edges of the drawing, so that long names have the most space.
      const [x, anchor] = isTop ? [SIDE / 2, "middle"] : index === 1 ? [-12, "start"] : [SIDE + 12, "end"];
      return html`<text class="corner" x=${x} y=${corner.y * SIDE + (isTop ? -11 : 15)} text-anchor=${anchor}>
        ${shortened(names[index] ?? "")}<tspan class="weight" dx="2">${chosenPreference ? ` ${Math.round(weight / 10)}%` : ""}</tspan>
      </text>`;
    })}
    ${marks.map((mark) => {
      const { x, y } = toPoint(mark.preference);
      return html`<circle class=${mark.isDone ? "mark done" : "mark"} cx=${x * SIDE} cy=${y * SIDE} r="2.2" />`;
    })}
    ${handles.map(handle)}
    ${
      // Drawn again on top of the others. Reordering the elements would change the order of the Tab key.
      chosenHandle &&
      chosenPreference &&
      html`<g class="handle chosen top" transform=${at(chosenPreference)} aria-hidden="true">${dot(chosenHandle.label)}</g>`
    }
  </svg>`;
}

/** @param {Preference} preference */
function at(preference) {
  const { x, y } = toPoint(preference);
  return `translate(${x * SIDE} ${y * SIDE})`;
}

/** @param {string} label */
const dot = (label) => html`<circle class="dot" r="4.6" /><text dy="1.7">${label}</text>`;

/** @param {string} name */
const shortened = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name);

/** Lines where one of the three weights is `part`. @param {number} part */
function gridLines(part) {
  const whole = TOTAL * part;
  const line = (/** @type {Preference} */ a, /** @type {Preference} */ b) => {
    const [from, to] = [toPoint(a), toPoint(b)];
    return `M${from.x * SIDE} ${from.y * SIDE} L${to.x * SIDE} ${to.y * SIDE}`;
  };
  const rest = TOTAL - whole;
  return [
    line([whole, rest, 0], [whole, 0, rest]),
    line([rest, whole, 0], [0, whole, rest]),
    line([rest, 0, whole], [0, rest, whole]),
  ].join(" ");
}
