/** The controls of a preference: triangle, sliders, presets. */

import { html } from "../html.js";
import { centre, isSame, shares, vertex } from "../simplex.js";
import { useState } from "../vendor/hooks.js";
import { Sliders } from "./sliders.js";
import { Triangle } from "./triangle.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {import("../view_state.js").Space} Space */

const MOST_EDGES = 6; // the edges of four dimensions; more presets would fill the page

/**
 * @param {{space: Space, handles: readonly import("./triangle.js").Handle[], chosen: number,
 *   onChoose: (index: number) => void,
 *   onChange: (preference: Preference | null) => void}} props
 */
export function Steering({ space, handles, chosen, onChoose, onChange }) {
  const { names, descriptions } = space;
  const preference = handles[chosen]?.preference ?? null;
  // On a narrow screen the sliders start closed, because triangle and answers would not fit together with them.
  const [isNarrow] = useState(() => names.length === 3 && matchMedia("(max-width: 59.99rem)").matches);
  return html`<section class="steering" aria-label="Preference">
    ${
      handles.length > 1 &&
      html`<div class="tabs small" role="group" aria-label="Which answer to steer">
      ${handles.map(
        ({ label }, index) =>
          html`<button type="button" key=${index} aria-pressed=${index === chosen} onClick=${() => onChoose(index)}>${label}</button>`,
      )}
    </div>`
    }
    ${
      names.length === 3 &&
      html`<${Triangle} names=${names} handles=${handles} chosen=${chosen} onChoose=${onChoose} onChange=${onChange} />`
    }
    ${
      names.length > 1 &&
      (preference === null
        ? html`<p class="hint">The bare base model has no preference. Choose a preset to steer again.</p>`
        : html`<details class="exact" open=${!isNarrow}>
          <summary>Exact weights</summary>
          <${Sliders} names=${names} descriptions=${descriptions} preference=${preference} onChange=${onChange} />
        </details>`)
    }
    <${Presets} space=${space} preference=${preference} onChange=${onChange} />
  </section>`;
}

/** @param {{space: Space, preference: Preference | null, onChange: (preference: Preference | null) => void}} props */
function Presets({ space, preference, onChange }) {
  return html`<div class="chips" role="group" aria-label="Presets">
    ${presetsOf(space).map(
      (preset) =>
        html`<button
          type="button"
          key=${preset.name}
          aria-pressed=${isSame(preset.preference, preference)}
          onClick=${() => onChange(preset.preference)}
        >
          ${preset.name}
        </button>`,
    )}
  </div>`;
}

/**
 * Vertices, edges, the centre, the server's presets, and the base. A point has one name: the server's, if it has one.
 * @param {Space} space @returns {{name: string, preference: Preference | null}[]}
 */
function presetsOf({ names, start, presets }) {
  const dimensions = names.length;
  const edges = names.flatMap((name, first) =>
    names.slice(first + 1).map((other, offset) => ({
      name: `${name} + ${other}`,
      preference: shares(names.map((_, index) => Number(index === first || index === first + 1 + offset))),
    })),
  );
  /** @type {{name: string, preference: Preference}[]} */
  const places =
    dimensions < 2
      ? [{ name: "with the adapter", preference: start }]
      : [
          ...names.map((name, index) => ({ name, preference: vertex(dimensions, index) })),
          ...(dimensions > 2 && edges.length <= MOST_EDGES ? edges : []),
          { name: "even", preference: centre(dimensions) },
        ];
  const named = places.map((place) => presets.find((preset) => isSame(preset.preference, place.preference)) ?? place);
  const others = [...presets, { name: "default", preference: start }].filter(
    (preset, index, all) =>
      all.findIndex((each) => isSame(each.preference, preset.preference)) === index &&
      !named.some((place) => isSame(place.preference, preset.preference)),
  );
  return [...named, ...others, { name: "base", preference: null }];
}
