/** Renders the page. */

import { App } from "./components/app.js";
import { html } from "./html.js";
import { render } from "./vendor/preact.js";

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
