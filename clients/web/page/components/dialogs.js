/** The page's dialogs: the API key, and a request as code. */

import { asCurl, asOpenAI, asPanaceaClient } from "../copy_as.js";
import { html } from "../html.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { IconButton } from "./icon.js";

/** @typedef {import("../html.js").Children} Children */

/** @param {{title: string, onClose: () => void, children?: Children}} props */
function Dialog({ title, onClose, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return html`<dialog ref=${dialog} aria-label=${title} onClose=${onClose}>
    <header>
      <h2>${title}</h2>
      <${IconButton} icon="close" label="Close" onClick=${() => dialog.current?.close()} />
    </header>
    ${children}
  </dialog>`;
}

/** @param {{isWrong: boolean, onKey: (key: string) => void, onClose: () => void}} props */
export function KeyDialog({ isWrong, onKey, onClose }) {
  const [key, setKey] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (key.trim()) onKey(key.trim());
  };
  return html`<${Dialog} title="API key" onClose=${onClose}>
    <form class="key-form" onSubmit=${submit}>
      <p>${isWrong ? "The server did not accept this key. " : ""}This server needs an API key. The key stays in this tab and is never part of a link.</p>
      <label>
        Key
        <input type="password" autocomplete="off" value=${key} onInput=${(/** @type {InputEvent} */ event) => setKey(/** @type {HTMLInputElement} */ (event.target).value)} />
      </label>
      <button type="submit" class="primary" disabled=${!key.trim()}>Use this key</button>
    </form>
  <//>`;
}

/** @param {{request: import("../api.js").ChatRequest, needsKey: boolean, onClose: () => void}} props */
export function CopyDialog({ request, needsKey, onClose }) {
  const [chosen, setChosen] = useState(0);
  const [note, setNote] = useState("");
  const code = useRef(/** @type {HTMLElement | null} */ (null));
  const server = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const ways = [
    { name: "curl", text: asCurl(request, server, needsKey) },
    { name: "Python client", text: asPanaceaClient(request, server) },
    { name: "openai client", text: asOpenAI(request, server) },
  ];
  const text = ways[chosen]?.text ?? "";
  const copy = async () =>
    setNote((await copied(text, code.current)) ? "Copied." : "Selected: copy it with the keyboard.");
  return html`<${Dialog} title="This request as code" onClose=${onClose}>
    <div class="tabs" role="group" aria-label="Language">
      ${ways.map(
        ({ name }, index) =>
          html`<button type="button" key=${name} aria-pressed=${index === chosen} onClick=${() => {
            setChosen(index);
            setNote("");
          }}>${name}</button>`,
      )}
    </div>
    <pre class="code" tabindex="0" aria-label="Code" ref=${code}><code>${text}</code></pre>
    <div class="row">
      <button type="button" class="primary" onClick=${copy}>Copy</button>
      <span role="status">${note}</span>
    </div>
  <//>`;
}

/**
 * Copies `text` to the clipboard. If the browser does not allow this (for example over HTTP), it selects `element` instead
 * and returns false.
 * @param {string} text @param {HTMLElement | null} element
 */
export async function copied(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    if (element !== null) getSelection()?.selectAllChildren(element);
    return false;
  }
}
