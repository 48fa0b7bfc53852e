/** Preact's `h` as a tagged template: HTML syntax without a build step. */

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

/** @typedef {import("./vendor/preact.js").ComponentChildren} Children */

/**
 * Values in a template become text nodes, never markup.
 * @type {(strings: TemplateStringsArray, ...values: any[]) => Children}
 */
export const html = htm.bind(h);
