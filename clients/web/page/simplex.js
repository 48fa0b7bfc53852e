/**
 * Arithmetic of preferences. A preference is an array of integers with sum 1000, one per dimension, in thousandths.
 * Integers add up exactly, however often sliders move. All functions are pure.
 */

/** @typedef {readonly number[]} Preference Thousandths per dimension, with sum `TOTAL`; empty without dimensions. */
/** @typedef {{x: number, y: number}} Point In a triangle of side 1: corners (1/2, 0), (0, √3/2) and (1, √3/2). */

export const TOTAL = 1000;

const HEIGHT = Math.sqrt(3) / 2;

/** The corners with 100 % of each of three dimensions: the first on top, the second left, the third right. @type {readonly Point[]} */
export const CORNERS = [
  { x: 0.5, y: 0 },
  { x: 0, y: HEIGHT },
  { x: 1, y: HEIGHT },
];

/** @param {readonly number[]} numbers */
export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/**
 * Shares of `total` in proportion to `weights`, as integers with exactly this sum (largest-remainder method). The shares
 * are equal if all weights are 0.
 * @param {readonly number[]} weights finite, not negative
 * @param {number} total an integer
 * @returns {number[]}
 */
export function shares(weights, total = TOTAL) {
  if (weights.length === 0) return [];
  const whole = sum(weights);
  const exact = weights.map((weight) => (whole > 0 ? (weight / whole) * total : total / weights.length));
  const result = exact.map(Math.floor);
  const missing = total - sum(result);
  const byRemainder = exact.map((value, index) => ({ index, remainder: value - Math.floor(value) }));
  byRemainder.sort((a, b) => b.remainder - a.remainder || a.index - b.index);
  for (const { index } of byRemainder.slice(0, missing)) result[index] = (result[index] ?? 0) + 1;
  return result;
}

/**
 * `preference` with dimension `index` set to `value`, limited to what the locked dimensions leave. The other unlocked
 * dimensions share the rest in the proportions of `origin`.
 * @param {Preference} preference
 * @param {number} index
 * @param {number} value thousandths
 * @param {readonly boolean[]} locked by dimension; a lock on `index` itself does not count
 * @param {Preference} origin the preference at the start of a gesture, so that dragging to 100 % and back loses nothing
 * @returns {number[]}
 */
export function withWeight(preference, index, value, locked = [], origin = preference) {
  const others = preference.map((_, each) => each).filter((each) => each !== index);
  const free = others.filter((each) => !locked[each]);
  const room = TOTAL - sum(others.filter((each) => locked[each]).map((each) => preference[each] ?? 0));
  const result = [...preference];
  const wanted = Math.min(Math.max(Math.round(value), 0), room);
  result[index] = free.length > 0 ? wanted : room;
  const rest = shares(
    free.map((each) => origin[each] ?? 0),
    room - (result[index] ?? 0),
  );
  free.forEach((each, position) => {
    result[each] = rest[position] ?? 0;
  });
  return result;
}

/** 100 % of one dimension. @param {number} dimensions @param {number} index @returns {number[]} */
export const vertex = (dimensions, index) =>
  Array.from({ length: dimensions }, (_, each) => (each === index ? TOTAL : 0));

/** @param {number} dimensions */
export const centre = (dimensions) => shares(Array.from({ length: dimensions }, () => 1));

/** @param {Preference | null} a @param {Preference | null} b */
export const isSame = (a, b) =>
  a === b || (a !== null && b !== null && a.length === b.length && a.every((weight, index) => weight === b[index]));

/** Euclidean distance of two preferences' weights, 0 to √2. @param {Preference} a @param {Preference} b */
export const distance = (a, b) => Math.hypot(...a.map((weight, index) => (weight - (b[index] ?? 0)) / TOTAL));

/**
 * `count` evenly spaced preferences from 100 % of `from` to 100 % of `to`.
 * @param {number} dimensions @param {number} from @param {number} to @param {number} count at least 2
 * @returns {number[][]}
 */
export function edge(dimensions, from, to, count) {
  return Array.from({ length: count }, (_, step) => {
    const part = Math.round((step / (count - 1)) * TOTAL);
    const result = Array.from({ length: dimensions }, () => 0);
    result[to] = part;
    result[from] = TOTAL - part;
    return result;
  });
}

/**
 * A regular grid over the triangle of three dimensions, in rows from the first dimension's corner down.
 * @param {number} count points on each side, at least 2
 * @returns {number[][][]} row i has i + 1 preferences
 */
export function triangleRows(count) {
  const last = count - 1;
  return Array.from({ length: count }, (_, row) =>
    Array.from({ length: row + 1 }, (_, column) => shares([last - row, row - column, column])),
  );
}

/** @param {Preference} preference of three dimensions @returns {Point} */
export function toPoint(preference) {
  const weighted = (/** @type {"x" | "y"} */ axis) =>
    sum(CORNERS.map((corner, index) => (corner[axis] * (preference[index] ?? 0)) / TOTAL));
  return { x: weighted("x"), y: weighted("y") };
}

/**
 * The preference at the point of the triangle nearest to `point`, rounded to whole per cent.
 * @param {Point} point anywhere in the plane
 * @returns {number[]}
 */
export function fromPoint(point) {
  const first = 1 - point.y / HEIGHT;
  const third = point.x - first / 2;
  const weights = projected([first, 1 - first - third, third]);
  return shares(weights, 100).map((percent) => percent * (TOTAL / 100));
}

/**
 * The nearest point of the simplex (Duchi et al. 2008, "Efficient Projections onto the l1-Ball"). It subtracts the same
 * number from all weights and clips at 0, such that the sum is 1. Barycentric coordinates of an equilateral triangle
 * preserve distances up to a factor, so this is also the nearest point in the picture.
 * @param {readonly number[]} weights with sum 1
 */
function projected(weights) {
  const sorted = [...weights].sort((a, b) => b - a);
  let excess = 0;
  let total = 0;
  sorted.forEach((weight, index) => {
    total += weight;
    const candidate = (total - 1) / (index + 1);
    if (weight > candidate) excess = candidate;
  });
  return weights.map((weight) => Math.max(weight - excess, 0));
}

/**
 * The preference in the API's form: weights with sum 1 by name.
 * @param {Preference} preference @param {readonly string[]} names @returns {Record<string, number>}
 */
export const asObject = (preference, names) =>
  Object.fromEntries(names.map((name, index) => [name, (preference[index] ?? 0) / TOTAL]));

/**
 * The preference in thousandths nearest to weights in the API's form.
 * @param {Readonly<Record<string, number>>} weights @param {readonly string[]} names
 */
export const fromObject = (weights, names) => shares(names.map((name) => weights[name] ?? 0));

/** "62.5" @param {number} weight thousandths */
export const percent = (weight) => String(weight / 10);

/**
 * "helpful 70%, concise 30%", without dimensions at 0; "base" for the bare base model.
 * @param {Preference | null} preference @param {readonly string[]} names
 */
export function described(preference, names) {
  if (preference === null) return "base";
  const parts = names.map((name, index) => ({ name, weight: preference[index] ?? 0 }));
  return parts
    .filter(({ weight }) => weight > 0)
    .map(({ name, weight }) => `${name} ${percent(weight)}%`)
    .join(", ");
}
