/** Switches between the light, the dark and the system's theme. `theme.js` applies the choice before the first paint. */

import { html } from "../html.js";
import { remember } from "../storage.js";
import { useState } from "../vendor/hooks.js";
import { IconButton } from "./icon.js";

/** @typedef {"auto" | "light" | "dark"} Theme */

/** @type {readonly Theme[]} */
const THEMES = ["auto", "light", "dark"];

export function ThemeButton() {
  const [theme, setTheme] = useState(/** @type {Theme} */ (document.documentElement.dataset["theme"] ?? "auto"));
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
  const change = () => {
    document.documentElement.dataset["theme"] = next;
    remember("localStorage", "panacea.theme", next);
    setTheme(next);
  };
  return html`<${IconButton} icon=${theme} label=${`Theme: ${theme}. Change to ${next}`} onClick=${change} />`;
}
