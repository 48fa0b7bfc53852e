/** Preact's `h` behind a tagged template: markup in the browser's own syntax, without a build step. */

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

/** @typedef {import("./vendor/preact.js").ComponentChildren} Children */

/**
 * Text in a template becomes text nodes, never markup.
 * @type {(strings: TemplateStringsArray, ...values: any[]) => Children}
 */
export const html = htm.bind(h);
