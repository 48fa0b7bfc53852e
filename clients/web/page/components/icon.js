/** Icons: line drawings of 16 by 16 units. */

import { html } from "../html.js";

const PATHS = {
  pin: "M6 2h4l-.5 4.5L12 9H4l2.5-2.5zM8 9v5",
  expand: "M6 2H2v4M10 2h4v4M6 14H2v-4M10 14h4v-4",
  shrink: "M2 6h4V2M14 6h-4V2M2 10h4v4M14 10h-4v4",
  code: "M5 4 1.5 8 5 12M11 4l3.5 4-3.5 4",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  edit: "M3 13l.6-2.8L11 2.8l2.2 2.2-7.4 7.4zM9.5 4.3l2.2 2.2",
  key: "M9.5 8.5a3.5 3.5 0 1 1 1.6-1.6L15 11v2h-2v-1.5h-1.5V10z",
  link: "M6.5 9.5l3-3M7 4.5l1.5-1.5a3 3 0 0 1 4.3 4.3L11.3 8.8M9 11.5l-1.5 1.5a3 3 0 0 1-4.3-4.3l1.5-1.5",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  dark: "M13.5 9.5A6 6 0 1 1 6.5 2.5a5 5 0 0 0 7 7z",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
};

/** @param {{name: keyof typeof PATHS}} props */
export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

/**
 * @param {{icon: keyof typeof PATHS, label: string, onClick: () => void, isPressed?: boolean, isDisabled?: boolean}} props
 */
export const IconButton = ({ icon, label, onClick, isPressed, isDisabled }) =>
  html`<button
    type="button"
    class="icon-button"
    aria-label=${label}
    title=${label}
    aria-pressed=${isPressed}
    disabled=${isDisabled}
    onClick=${onClick}
  >
    <${Icon} name=${icon} />
  </button>`;
