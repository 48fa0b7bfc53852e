/** A word-by-word difference of two texts. */

/** @typedef {{kind: "same" | "added" | "removed", text: string}} Part */

const MOST_CELLS = 4_000_000;
const HAS_WORD = /[\p{L}\p{N}]/u;

/** The words of a text, and the spaces and punctuation between them. @param {string} text @returns {string[]} */
export const words = (text) => text.match(/[\p{L}\p{N}\p{M}_'’-]+|\s+|[^\p{L}\p{N}\p{M}_'’\s-]/gu) ?? [];

/**
 * The difference from `before` to `after` with the longest common subsequence of words. If the changed middles are longer
 * than about 1,000 words each, they are shown as replaced.
 * @param {string} before @param {string} after
 * @returns {Part[]} the parts of `before` are "same" and "removed", those of `after` "same" and "added", both in order
 */
export function wordDiff(before, after) {
  const [a, b] = [words(before), words(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [aEnd, bEnd] = [a.length, b.length];
  while (aEnd > start && bEnd > start && a[aEnd - 1] === b[bEnd - 1]) [aEnd, bEnd] = [aEnd - 1, bEnd - 1];
  const middle = changes(a.slice(start, aEnd), b.slice(start, bEnd));
  return phrases([
    { kind: "same", text: a.slice(0, start).join("") },
    ...middle,
    { kind: "same", text: a.slice(aEnd).join("") },
  ]);
}

/** @param {readonly string[]} a @param {readonly string[]} b @returns {Part[]} */
function changes(a, b) {
  if (a.length * b.length > MOST_CELLS) {
    return [
      { kind: "removed", text: a.join("") },
      { kind: "added", text: b.join("") },
    ];
  }
  // longest[i * width + j]: number of common words of a from i on and b from j on.
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  const at = (/** @type {number} */ i, /** @type {number} */ j) => longest[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  /** @type {Part[]} */
  const parts = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const [left, right] = [a[i], b[j]];
    if (left !== undefined && left === right) {
      parts.push({ kind: "same", text: left });
      [i, j] = [i + 1, j + 1];
    } else if (left !== undefined && (right === undefined || at(i + 1, j) >= at(i, j + 1))) {
      parts.push({ kind: "removed", text: left });
      i += 1;
    } else {
      parts.push({ kind: "added", text: right ?? "" });
      j += 1;
    }
  }
  return parts;
}

/**
 * Merges neighbouring parts, so that changes read as phrases. Spaces and punctuation between two changes become part of
 * the change.
 * @param {readonly Part[]} parts @returns {Part[]}
 */
function phrases(parts) {
  /** @type {Part[]} */
  const result = [];
  let [same, removed, added] = ["", "", ""];
  const endChange = () => {
    if (removed) result.push({ kind: "removed", text: removed });
    if (added) result.push({ kind: "added", text: added });
    [removed, added] = ["", ""];
  };
  const endSame = () => {
    if (same) result.push({ kind: "same", text: same });
    same = "";
  };
  for (const { kind, text } of parts) {
    if (kind === "same") {
      same += text;
      continue;
    }
    if (same && (removed || added) && !HAS_WORD.test(same)) {
      [removed, added, same] = [removed + same, added + same, ""];
    } else if (same) {
      endChange();
      endSame();
    }
    if (kind === "removed") removed += text;
    else added += text;
  }
  endChange();
  endSame();
  return result;
}
