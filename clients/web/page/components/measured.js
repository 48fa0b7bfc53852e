/** A chart of the adapter's evaluation. It shows measured points only, without interpolation or extrapolation. */

import { html } from "../html.js";
import { described, distance, fromObject } from "../simplex.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { wordCount } from "./answer_text.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {import("../api.js").EvaluationPoint} Point */
/** @typedef {import("./answer_text.js").Answer} Answer */
/**
 * @typedef {object} Axis
 * @property {string} name
 * @property {(point: Point) => number} of
 * @property {(point: Point) => number} [error] standard error
 * @property {(answer: Answer) => number} [live] the value for a single answer, if it can be computed
 */

const TALLEST = 460;
const SHAPE = 0.72; // height over width, up to `TALLEST`
const LEFT = 58;
const RIGHT = 16;
const TOP = 14;
const BOTTOM = 48;
const TICKS = 5;

/**
 * @param {{evaluation: import("../api.js").Evaluation | null, names: readonly string[], chosen: Preference | null,
 *   answers: readonly Answer[], onChoose: (preference: Preference) => void}} props
 */
export function Measured({ evaluation, names, chosen, answers, onChoose }) {
  const [sweepIndex, setSweep] = useState(0);
  const [axes, setAxes] = useState({ x: 0, y: 1 });
  const sweep = evaluation?.sweeps[sweepIndex];
  if (evaluation === null || sweep === undefined) {
    return html`<p class="hint">This adapter has no evaluation, so there is nothing to show.</p>`;
  }
  const all = axesOf(evaluation);
  const [x, y] = [all[axes.x], all[axes.y]];
  if (x === undefined || y === undefined) return null;
  const preferenceOf = (/** @type {Point} */ point) =>
    fromObject(
      Object.fromEntries(evaluation.dimensions.map((name, index) => [name, point.preference[index] ?? 0])),
      names,
    );
  const points = sweep.points.map((point) => ({ point, preference: preferenceOf(point) }));
  const nearest =
    chosen &&
    points.reduce((best, each) =>
      distance(each.preference, chosen) < distance(best.preference, chosen) ? each : best,
    );
  const away = nearest && chosen ? distance(nearest.preference, chosen) : 0;
  const { live: liveX } = x;
  const { live: liveY } = y;
  const live =
    liveX && liveY
      ? answers.map((answer) => ({
          x: liveX(answer),
          y: liveY(answer),
          what: described(fromObject(answer.preference ?? {}, names), names),
        }))
      : [];
  const pick = (/** @type {"x" | "y"} */ axis) => html`<label>
    ${axis === "x" ? "Across" : "Up"}
    <select value=${String(axes[axis])} onChange=${(/** @type {Event} */ event) => setAxes({ ...axes, [axis]: Number(/** @type {HTMLSelectElement} */ (event.target).value) })}>
      ${all.map(({ name }, index) => html`<option key=${name} value=${String(index)}>${name}</option>`)}
    </select>
  </label>`;
  return html`<div class="measured">
    <div class="row">
      ${pick("x")} ${pick("y")}
      ${
        evaluation.sweeps.length > 1 &&
        html`<label>
        Temperature
        <select value=${String(sweepIndex)} onChange=${(/** @type {Event} */ event) => setSweep(Number(/** @type {HTMLSelectElement} */ (event.target).value))}>
          ${evaluation.sweeps.map(({ temperature }, index) => html`<option key=${index} value=${String(index)}>${temperature}</option>`)}
        </select>
      </label>`
      }
    </div>
    <${Chart} x=${x} y=${y} points=${points} nearest=${nearest ?? null} live=${live} names=${names} onChoose=${onChoose} />
    <ul class="legend">
      <li><span class="sample best"></span>on the front: no measured point dominates it</li>
      <li><span class="sample"></span>dominated by another measured point</li>
      ${nearest && html`<li><span class="sample ring"></span>${away < 0.001 ? "the chosen preference" : `the measured point nearest to the chosen preference: ${described(nearest.preference, names)}`}</li>`}
      ${
        live.length > 0
          ? html`<li><span class="sample live"></span>answers on this page, each a single sample</li>`
          : html`<li class="hint">Answers on this page appear if both axes are words or weights, because their rewards are not measured.</li>`
      }
    </ul>
    <p class="hint">
      Means over ${evaluation.prompts} questions with ${sweep.samples_per_prompt === 1 ? "one answer" : `${sweep.samples_per_prompt} answers`} each, at
      temperature ${sweep.temperature}. Bars are one standard error. Measured on ${evaluation.created}.
    </p>
    <${Numbers} evaluation=${evaluation} points=${points} names=${names} />
  </div>`;
}

/**
 * Whether the share of faithful sentences was measured. Most rewards do not measure it.
 * @param {import("../api.js").Evaluation} evaluation
 */
const isJudged = ({ sweeps }) => sweeps.every(({ points }) => points.every(({ faithful }) => faithful !== null));

/** @param {import("../api.js").Evaluation} evaluation @returns {Axis[]} */
function axesOf(evaluation) {
  const { dimensions } = evaluation;
  return [
    ...dimensions.map((name, index) => ({
      name: `reward: ${name}`,
      of: (/** @type {Point} */ point) => point.rewards[index] ?? 0,
      error: (/** @type {Point} */ point) => point.standard_errors[index] ?? 0,
    })),
    ...dimensions.map((name, index) => ({
      name: `weight: ${name}`,
      of: (/** @type {Point} */ point) => point.preference[index] ?? 0,
      live: (/** @type {Answer} */ answer) => answer.preference?.[name] ?? 0,
    })),
    {
      name: "words",
      of: (/** @type {Point} */ point) => point.mean_words,
      live: (/** @type {Answer} */ answer) => wordCount(answer.text),
    },
    ...(isJudged(evaluation)
      ? [{ name: "share of faithful sentences", of: (/** @type {Point} */ point) => point.faithful ?? 0 }]
      : []),
  ];
}

/**
 * @param {{x: Axis, y: Axis, points: {point: Point, preference: Preference}[],
 *   nearest: {point: Point, preference: Preference} | null, live: {x: number, y: number, what: string}[],
 *   names: readonly string[], onChoose: (preference: Preference) => void}} props
 */
function Chart({ x, y, points, nearest, live, names, onChoose }) {
  const [shown, setShown] = useState("");
  const figure = useRef(/** @type {HTMLElement | null} */ (null));
  // Drawn in the page's pixels, so that the text has the same size on a phone.
  const [width, setWidth] = useState(640);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.round(entry.contentRect.width)));
    if (figure.current) observer.observe(figure.current);
    return () => observer.disconnect();
  }, []);
  const height = Math.min(TALLEST, Math.round(width * SHAPE) + BOTTOM);
  const across = scale(
    [...points.flatMap(({ point }) => ends(x, point)), ...live.map((each) => each.x)],
    LEFT,
    width - RIGHT,
  );
  const up = scale(
    [...points.flatMap(({ point }) => ends(y, point)), ...live.map((each) => each.y)],
    height - BOTTOM,
    TOP,
  );
  const bar = (/** @type {Point} */ point) => {
    const [cx, cy] = [across.at(x.of(point)), up.at(y.of(point))];
    const [dx, dy] = [x.error?.(point) ?? 0, y.error?.(point) ?? 0];
    const [w, h] = [across.at(dx) - across.at(0), up.at(0) - up.at(dy)];
    return `M${cx - w} ${cy}H${cx + w}M${cx} ${cy - h}V${cy + h}`;
  };
  return html`<figure class="chart" ref=${figure}>
    <svg viewBox=${`0 0 ${width} ${height}`} role="group" aria-label=${`${y.name} over ${x.name}`}>
      ${across.ticks.map(
        (tick) => html`<g key=${tick}>
        <path class="grid" d=${`M${across.at(tick)} ${TOP}V${height - BOTTOM}`} />
        <text class="tick" x=${across.at(tick)} y=${height - BOTTOM + 18}>${tick}</text>
      </g>`,
      )}
      ${up.ticks.map(
        (tick) => html`<g key=${tick}>
        <path class="grid" d=${`M${LEFT} ${up.at(tick)}H${width - RIGHT}`} />
        <text class="tick up" x=${LEFT - 8} y=${up.at(tick) + 4}>${tick}</text>
      </g>`,
      )}
      <text class="axis" x=${(LEFT + width - RIGHT) / 2} y=${height - 8}>${x.name}</text>
      <text class="axis" transform=${`translate(14 ${(TOP + height - BOTTOM) / 2}) rotate(-90)`}>${y.name}</text>
      ${points.map(({ point }, index) => html`<path key=${index} class="error" d=${bar(point)} />`)}
      ${nearest && html`<circle class="ring" cx=${across.at(x.of(nearest.point))} cy=${up.at(y.of(nearest.point))} r="11" />`}
      ${points.map(({ point, preference }, index) => {
        const what = `${described(preference, names)}: ${x.name} ${rounded(x.of(point))}, ${y.name} ${rounded(y.of(point))}`;
        const show = () => setShown(what);
        const choose = () => onChoose(preference);
        return html`<circle
          key=${index}
          class=${point.non_dominated ? "point best" : "point"}
          cx=${across.at(x.of(point))}
          cy=${up.at(y.of(point))}
          r="6"
          role="button"
          tabindex="0"
          aria-label=${`${what}. Choose this preference`}
          onPointerEnter=${show}
          onFocus=${show}
          onClick=${choose}
          onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            choose();
          }}
        />`;
      })}
      ${live.map((each, index) => {
        const [cx, cy] = [across.at(each.x), up.at(each.y)];
        return html`<path
          key=${index}
          class="live"
          d=${`M${cx} ${cy - 7}L${cx + 7} ${cy}L${cx} ${cy + 7}L${cx - 7} ${cy}Z`}
          role="img"
          aria-label=${`A single answer at ${each.what}: ${x.name} ${rounded(each.x)}, ${y.name} ${rounded(each.y)}`}
          onPointerEnter=${() => setShown(`A single answer at ${each.what}: ${y.name} ${rounded(each.y)}`)}
        />`;
      })}
    </svg>
    <figcaption class="hint" aria-live="polite">${shown || "Point at a dot to see its numbers. Click it to choose its preference."}</figcaption>
  </figure>`;
}

/** @param {{evaluation: import("../api.js").Evaluation, points: {point: Point, preference: Preference}[], names: readonly string[]}} props */
function Numbers({ evaluation, points, names }) {
  return html`<details>
    <summary>All numbers</summary>
    <div class="table" tabindex="0" role="region" aria-label="All numbers">
      <table>
        <thead>
          <tr>
            <th scope="col">preference</th>
            ${evaluation.dimensions.map((name) => html`<th scope="col" key=${name}>reward: ${name}</th>`)}
            <th scope="col">words</th>
            ${isJudged(evaluation) && html`<th scope="col">faithful</th>`}
          </tr>
        </thead>
        <tbody>
          ${points.map(
            ({ point, preference }, index) => html`<tr key=${index}>
              <th scope="row">${described(preference, names)}</th>
              ${point.rewards.map((reward, each) => html`<td key=${each}>${rounded(reward)} ± ${rounded(point.standard_errors[each] ?? 0)}</td>`)}
              <td>${rounded(point.mean_words)}</td>
              ${point.faithful !== null && html`<td>${rounded(point.faithful)}</td>`}
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}

/** Both ends of a point's error bar. @param {Axis} axis @param {Point} point */
function ends({ of, error }, point) {
  const [value, half] = [of(point), error?.(point) ?? 0];
  return [value - half, value + half];
}

/**
 * A linear scale with round ticks and a margin at both ends.
 * @param {number[]} values @param {number} from @param {number} to positions of the smallest and the largest tick
 */
function scale(values, from, to) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const span = high - low || Math.abs(high) || 1;
  const rough = span / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((each) => each * power >= rough) ?? 10);
  const least = Math.floor((low - span * 0.02) / step) * step;
  const most = Math.ceil((high + span * 0.02) / step) * step;
  const count = Math.round((most - least) / step);
  return {
    at: (/** @type {number} */ value) => from + ((value - least) / (most - least)) * (to - from),
    ticks: Array.from({ length: count + 1 }, (_, index) => rounded(least + index * step)),
  };
}

/** @param {number} value */
const rounded = (value) => Number(value.toFixed(Math.abs(value) >= 10 ? 1 : 3));
