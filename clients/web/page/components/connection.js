/** The state of the connection to the server, in words. */

import { html } from "../html.js";

/** @param {{failure: import("../api.js").Failure | null}} props */
export function ConnectionNotice({ failure }) {
  if (failure === null || failure.kind === "key") return null;
  return html`<div class="notice" role="alert">
    <p>${failure.message} This page retries automatically.</p>
  </div>`;
}

/** @param {{failure: import("../api.js").Failure | null, isLoaded: boolean}} props */
export function ConnectionState({ failure, isLoaded }) {
  const [state, words] =
    failure?.kind === "key"
      ? ["away", "key needed"]
      : failure
        ? ["away", "not reachable"]
        : isLoaded
          ? ["ready", "ready"]
          : ["", "connecting"];
  return html`<span class=${`connection ${state}`} role="status"><span class="light" aria-hidden="true"></span>${words}</span>`;
}
