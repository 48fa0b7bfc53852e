/** The browser's memory, which a visitor may have forbidden: then the page just forgets. */

/** @typedef {"sessionStorage" | "localStorage"} Kind one ends with the tab, the other stays */

/** @param {Kind} kind @param {string} name @returns {string | null} */
export function recall(kind, name) {
  try {
    return window[kind].getItem(name);
  } catch {
    return null;
  }
}

/** @param {Kind} kind @param {string} name @param {string} value */
export function remember(kind, name, value) {
  try {
    window[kind].setItem(name, value);
  } catch {
    // forbidden, or full
  }
}
