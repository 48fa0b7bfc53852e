/**
 * Renders Markdown. marked parses it, and this module creates the elements for marked's tokens. So a model's text can
 * never become markup: HTML in it is shown as text, and no resource is loaded for it.
 */

import { html } from "./html.js";
import { useMemo } from "./vendor/hooks.js";
import { Lexer } from "./vendor/marked.js";

/** @typedef {import("./html.js").Children} Children */
/** @typedef {import("./vendor/marked.js").Token} AnyToken */
/** @typedef {import("./vendor/marked.js").MarkedToken} Token */

const MOST_CHARACTERS = 200_000;
const DEEPEST = 40;
// The parser's time is quadratic in some paragraphs, such as one with a full stop after every letter. This length takes
// 0.1 s.
const LONGEST_PARAGRAPH = 10_000;
const LINK_PROTOCOLS = ["http:", "https:", "mailto:"];
/** @type {Record<string, string>} */
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** @param {{text: string}} props */
export function Markdown({ text }) {
  const content = useMemo(() => rendered(text), [text]);
  return html`<div class="markdown">${content}</div>`;
}

/** @param {string} text @returns {Children} */
function rendered(text) {
  if (text.length > MOST_CHARACTERS) return plain(text);
  /** @type {readonly AnyToken[]} */
  let tokens;
  try {
    tokens = new BoundedLexer().lex(text);
  } catch {
    return plain(text); // for example, thousands of nested quotes are too deep for the recursive parser
  }
  return all(tokens, 0);
}

/** A lexer that leaves longer paragraphs as plain text. */
class BoundedLexer extends Lexer {
  /** @override @param {string} source @param {AnyToken[]} tokens */
  inlineTokens(source, tokens = []) {
    if (source.length <= LONGEST_PARAGRAPH) return super.inlineTokens(source, tokens);
    tokens.push({ type: "text", raw: source, text: source, escaped: false });
    return tokens;
  }
}

/** @param {string} text */
const plain = (text) => html`<p class="plain">${text}</p>`;

/** @param {readonly AnyToken[] | undefined} tokens @param {number} depth @returns {Children} */
function all(tokens, depth) {
  return (tokens ?? []).map((token) => (depth > DEEPEST ? token.raw : one(/** @type {Token} */ (token), depth + 1)));
}

/** @param {Token} token @param {number} depth @returns {Children} */
function one(token, depth) {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "paragraph":
      return html`<p>${all(token.tokens, depth)}</p>`;
    case "heading":
      // The page itself uses heading levels 1 to 3.
      return html`<div class="heading" role="heading" aria-level=${Math.min(token.depth + 3, 9)}>
        ${all(token.tokens, depth)}
      </div>`;
    case "code":
      return html`<pre tabindex="0"><code>${token.text}</code></pre>`;
    case "blockquote":
      return html`<blockquote>${all(token.tokens, depth)}</blockquote>`;
    case "hr":
      return html`<hr />`;
    case "list": {
      const items = token.items.map((item) => html`<li>${all(item.tokens, depth)}</li>`);
      return token.ordered ? html`<ol start=${token.start}>${items}</ol>` : html`<ul>${items}</ul>`;
    }
    case "checkbox":
      return token.checked ? "☑ " : "☐ ";
    case "table": {
      const cell = (/** @type {import("./vendor/marked.js").Tokens.TableCell} */ each) =>
        each.header
          ? html`<th scope="col" class=${`align-${each.align ?? "left"}`}>${all(each.tokens, depth)}</th>`
          : html`<td class=${`align-${each.align ?? "left"}`}>${all(each.tokens, depth)}</td>`;
      return html`<div class="table" tabindex="0" role="region" aria-label="Table">
        <table>
          <thead><tr>${token.header.map(cell)}</tr></thead>
          <tbody>${token.rows.map((row) => html`<tr>${row.map(cell)}</tr>`)}</tbody>
        </table>
      </div>`;
    }
    case "strong":
      return html`<strong>${all(token.tokens, depth)}</strong>`;
    case "em":
      return html`<em>${all(token.tokens, depth)}</em>`;
    case "del":
      return html`<del>${all(token.tokens, depth)}</del>`;
    case "codespan":
      return html`<code>${token.text}</code>`;
    case "br":
      return html`<br />`;
    case "html":
      return token.block ? plain(token.raw.trimEnd()) : token.raw;
    case "link":
      return link(withoutEntities(token.href), all(token.tokens, depth));
    case "image": // an image would send a request to an address that the model chose
      return link(withoutEntities(token.href), `[picture: ${withoutEntities(token.text || token.href)}]`);
    case "text":
      return token.tokens ? all(token.tokens, depth) : withoutEntities(token.text);
    case "escape":
      return token.text;
    default:
      return token.raw;
  }
}

/** @param {string} address @param {Children} content @returns {Children} */
function link(address, content) {
  const target = URL.canParse(address) ? new URL(address) : null;
  if (target === null || !LINK_PROTOCOLS.includes(target.protocol)) return content;
  return html`<a href=${target.href} title=${target.href} target="_blank" rel="noopener noreferrer nofollow">${content}</a>`;
}

/** @param {string} text */
function withoutEntities(text) {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w{2,6}));/g, (written, decimal, hex, name) => {
    if (name !== undefined) return Object.hasOwn(ENTITIES, name) ? (ENTITIES[name] ?? written) : written;
    const code = decimal === undefined ? Number.parseInt(hex, 16) : Number(decimal);
    const isCharacter = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return isCharacter ? String.fromCodePoint(code) : "\ufffd";
  });
}
