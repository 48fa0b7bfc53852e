/** The state of the views, and its encoding in a link. Links never contain keys, answers or conversations. */

import { TOTAL, asObject, edge, isSame, sum, triangleRows, vertex } from "./simplex.js";

/** @typedef {import("./simplex.js").Preference} Preference */
/** @typedef {"compare" | "range" | "chat" | "measured"} ViewName */
/**
 * @typedef {{id: number, preference: Preference | null}} Column null is the bare base model
 * @typedef {{from: number, to: number, count: number} | {over: "triangle", count: number}} Range
 * @typedef {{system: string, temperature: number | null, topP: number | null, maxTokens: number | null,
 *   seed: number | null}} Settings null selects the server's default
 * @typedef {object} ViewState
 * @property {ViewName} view
 * @property {string} prompt
 * @property {readonly Column[]} columns two to six
 * @property {number} chosen index of the steered column
 * @property {number | null} pinned id of the column with which the others are compared
 * @property {Preference | null} chat preference of the next turn
 * @property {Range} range
 * @property {Settings} settings
 *
 * @typedef {object} Space the server's preference space
 * @property {string} model
 * @property {readonly string[]} names of the dimensions
 * @property {readonly string[]} descriptions
 * @property {Preference} start the default
 * @property {readonly {name: string, preference: Preference}[]} presets
 * @property {readonly string[]} prompts example prompts
 */

export const MOST_COLUMNS = 6;
export const FEWEST_COLUMNS = 2;
export const MOST_POINTS = 6;
/** @type {readonly ViewName[]} */
export const VIEWS = ["compare", "range", "chat", "measured"];
const STEERED_VIEWS = ["compare", "chat"]; // the only views of a model without dimensions

let lastId = 0;
/** @param {Preference | null} preference @returns {Column} */
export const column = (preference) => ({ id: (lastId += 1), preference });

/** @param {Space} space */
export const viewsOf = (space) => VIEWS.filter((view) => space.names.length > 1 || STEERED_VIEWS.includes(view));

/** @param {Space} space @returns {ViewState} */
export function initial(space) {
  const dimensions = space.names.length;
  /** @type {(Preference | null)[]} */
  const preferences =
    dimensions > 1 ? space.names.slice(0, 3).map((_, index) => vertex(dimensions, index)) : [space.start, null];
  return {
    view: "compare",
    prompt: space.prompts[0] ?? "",
    columns: preferences.map(column),
    chosen: 0,
    pinned: null,
    chat: space.start,
    range: dimensions === 3 ? { over: "triangle", count: 4 } : { from: 0, to: Math.min(1, dimensions - 1), count: 5 },
    settings: { system: "", temperature: 0, topP: null, maxTokens: 400, seed: null },
  };
}

/** @param {Space} space @returns {(preference: Preference | null) => string} */
const writer = (space) => (preference) =>
  preference === null || space.names.length === 0 ? "base" : preference.map((weight) => weight / TOTAL).join(",");

/**
 * The state as a URL fragment (the part after "#"). It contains only the differences from the initial state.
 * @param {ViewState} state @param {Space} space
 */
export function toFragment(state, space) {
  const start = initial(space);
  const write = writer(space);
  const { settings } = state;
  const columns = (/** @type {ViewState} */ each) => each.columns.map(({ preference }) => write(preference)).join(";");
  const range = (/** @type {Range} */ each) =>
    "over" in each ? `triangle.${each.count}` : `${each.from}.${each.to}.${each.count}`;
  const pinned = state.columns.findIndex(({ id }) => id === state.pinned);
  const parts = {
    view: state.view === start.view ? null : state.view,
    q: state.prompt === start.prompt ? null : state.prompt,
    columns: columns(state) === columns(start) ? null : columns(state),
    steer: state.chosen === start.chosen ? null : state.chosen + 1,
    pin: pinned < 0 ? null : pinned + 1,
    chat: isSame(state.chat, start.chat) ? null : write(state.chat),
    range: range(state.range) === range(start.range) ? null : range(state.range),
    system: settings.system === start.settings.system ? null : settings.system,
    temperature: settings.temperature === start.settings.temperature ? null : (settings.temperature ?? "auto"),
    top_p: settings.topP,
    max_tokens: settings.maxTokens === start.settings.maxTokens ? null : (settings.maxTokens ?? "auto"),
    seed: settings.seed,
  };
  const query = new URLSearchParams(
    Object.entries(parts).flatMap(([name, value]) => (value === null ? [] : [[name, String(value)]])),
  );
  // Commas and semicolons are valid in a fragment, and keep the link readable.
  return query.toString().replaceAll("%2C", ",").replaceAll("%3B", ";");
}

/**
 * The state that a link describes. Parts that are invalid here (such as other dimensions) keep their initial values.
 * @param {string} fragment with or without "#" @param {Space} space
 * @returns {{state: ViewState, ignored: string[]}} `ignored` names the invalid parts
 */
export function fromFragment(fragment, space) {
  const given = Map.groupBy(new URLSearchParams(fragment.replace(/^#/, "")), ([name]) => name);
  const state = initial(space);
  /** @type {string[]} */
  const ignored = [];
  /**
   * @template T
   * @param {string} name @param {(text: string) => T | undefined} parse @param {(value: T) => void} accept
   */
  const read = (name, parse, accept) => {
    const [first, ...others] = given.get(name) ?? [];
    given.delete(name);
    if (first === undefined) return;
    const value = others.length === 0 ? parse(first[1]) : undefined; // a repeated part is invalid
    if (value === undefined) ignored.push(name);
    else accept(value);
  };
  const preference = (/** @type {string} */ text) => parsedPreference(text, space.names.length);
  const view = (/** @type {string} */ text) => viewsOf(space).find((each) => each === text);
  read("view", view, (value) => (state.view = value));
  read("q", String, (value) => (state.prompt = value));
  read(
    "columns",
    (text) => parsedColumns(text, preference),
    (value) => (state.columns = value.map(column)),
  );
  const index = number(1, state.columns.length, true);
  read("steer", index, (value) => (state.chosen = value - 1));
  read("pin", index, (value) => (state.pinned = state.columns[value - 1]?.id ?? null));
  read("chat", preference, (value) => (state.chat = value));
  read(
    "range",
    (text) => parsedRange(text, space.names.length),
    (value) => (state.range = value),
  );
  const { settings } = state;
  read("system", String, (value) => (settings.system = value));
  read("temperature", orAuto(number(0, 2)), (value) => (settings.temperature = value));
  read("top_p", number(0.01, 1), (value) => (settings.topP = value));
  read("max_tokens", orAuto(number(1, 1e6, true)), (value) => (settings.maxTokens = value));
  read("seed", number(0, Number.MAX_SAFE_INTEGER, true), (value) => (settings.seed = value));
  return { state, ignored: [...ignored, ...given.keys()] };
}

/** @param {string} text @param {number} dimensions @returns {number[] | null | undefined} */
function parsedPreference(text, dimensions) {
  if (text === "base") return null;
  const weights = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Math.round(Number(part) * TOTAL)));
  const isOne = weights.length === dimensions && weights.every((weight) => weight >= 0) && sum(weights) === TOTAL;
  return isOne ? weights : undefined;
}

/** @param {string} text @param {(text: string) => Preference | null | undefined} parse */
function parsedColumns(text, parse) {
  const preferences = text.split(";").map(parse);
  const fits = preferences.length >= FEWEST_COLUMNS && preferences.length <= MOST_COLUMNS;
  return fits && preferences.every((each) => each !== undefined) ? preferences : undefined;
}

/** @param {string} text @param {number} dimensions @returns {Range | undefined} */
function parsedRange(text, dimensions) {
  const [first = "", ...others] = text.split(".");
  const numbers = [first, ...others].map(Number);
  const count = numbers.at(-1) ?? Number.NaN;
  if (!Number.isInteger(count) || count < 2 || count > MOST_POINTS) return undefined;
  if (first === "triangle") return others.length === 1 && dimensions === 3 ? { over: "triangle", count } : undefined;
  const [from = -1, to = -1] = numbers;
  const isDimension = (/** @type {number} */ each) => Number.isInteger(each) && each >= 0 && each < dimensions;
  return numbers.length === 3 && isDimension(from) && isDimension(to) && from !== to ? { from, to, count } : undefined;
}

/** @param {number} least @param {number} most @returns {(text: string) => number | undefined} */
export function number(least, most, isWhole = false) {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    return value >= least && value <= most && (!isWhole || Number.isInteger(value)) ? value : undefined;
  };
}

/** @param {(text: string) => number | undefined} parse @returns {(text: string) => number | null | undefined} */
const orAuto = (parse) => (text) => (text === "auto" ? null : parse(text));

/**
 * The request for this preference with these settings.
 * @param {Space} space @param {Settings} settings @param {Preference | null} preference
 * @param {readonly import("./api.js").Message[]} messages without the system message
 * @returns {import("./api.js").ChatRequest}
 */
export function chatRequest(space, settings, preference, messages) {
  const { system, temperature, topP, maxTokens, seed } = settings;
  return {
    model: preference === null ? `${space.model}:base` : space.model,
    messages: system.trim() ? [{ role: "system", content: system }, ...messages] : [...messages],
    ...(preference !== null && preference.length > 0 && { preference: asObject(preference, space.names) }),
    ...(temperature !== null && { temperature }),
    ...(topP !== null && { top_p: topP }),
    ...(maxTokens !== null && { max_tokens: maxTokens }),
    ...(seed !== null && { seed }),
  };
}

/**
 * The preferences of a range, in the rows in which they are shown. Empty for fewer than two dimensions.
 * @param {Range} range @param {number} dimensions @returns {readonly Preference[][]}
 */
export function rangeRows(range, dimensions) {
  if (dimensions < 2) return [];
  return "over" in range ? triangleRows(range.count) : [edge(dimensions, range.from, range.to, range.count)];
}
