/** Access to the browser's storage. If the visitor has disabled it, nothing is stored. */

/** @typedef {"sessionStorage" | "localStorage"} Kind session storage ends with the tab, local storage stays */

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
    // disabled or full
  }
}
