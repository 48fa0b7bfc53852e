/** The views of one model, their shared state, and the link that reproduces it. */

import { html } from "../html.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { MOST_COLUMNS, chatRequest, column, fromFragment, rangeRows, toFragment, viewsOf } from "../view_state.js";
import { Chat } from "./chat.js";
import { Compare, columnKey } from "./compare.js";
import { CopyDialog, copied } from "./dialogs.js";
import { Icon } from "./icon.js";
import { Measured } from "./measured.js";
import { PromptBox } from "./prompt_box.js";
import { RANGE, RangeView, rangeKey } from "./range_view.js";
import { Settings } from "./settings.js";
import { Steering } from "./steering.js";
import { Triangle } from "./triangle.js";

/** @typedef {import("../simplex.js").Preference} Preference */
/** @typedef {import("../view_state.js").ViewState} ViewState */
/** @typedef {import("../view_state.js").Column} Column */
/** @typedef {import("../view_state.js").ViewName} ViewName */
/** @typedef {import("../api.js").ChatRequest} ChatRequest */
/** @typedef {import("../api.js").Message} Message */
/** @typedef {import("./chat.js").Turn} Turn */

/** @type {Record<ViewName, {title: string, lead: string}>} */
const TITLES = {
  compare: { title: "Compare", lead: "Drag a point to update its answer." },
  range: { title: "Range", lead: "One question at many preferences." },
  chat: { title: "Chat", lead: "Set the preference of each turn." },
  measured: { title: "Trade-off", lead: "Measured rewards of each preference." },
};
const LINK_MS = 250; // browsers limit changes of the address to about 100 in half a minute
const QUIET_MS = 120; // a point that rests this long is asked for
const PATIENCE_MS = 450; // a point that keeps moving is asked for at this interval

const NAMES_SHOWN = 6;
const NAME_SHOWN = 40; // characters

let lastTurn = 0;

/**
 * @param {{space: import("../view_state.js").Space, server: import("../use_server.js").Server,
 *   answers: import("../use_answers.js").Answers, canAsk: boolean}} props
 */
export function Workbench({ space, server, answers, canAsk }) {
  const [opened] = useState(() => fromFragment(location.hash, space));
  const [state, setState] = useState(opened.state);
  const [ignored, setIgnored] = useState(opened.ignored);
  const [turns, setTurns] = useState(/** @type {readonly Turn[]} */ ([]));
  const [draft, setDraft] = useState("");
  const [asCode, setAsCode] = useState(/** @type {ChatRequest | null} */ (null));
  const [linkNote, setLinkNote] = useState("");
  const { names } = space;
  const { view, prompt, columns, chosen, settings } = state;
  const change = (/** @type {Partial<ViewState>} */ part) => setState((before) => ({ ...before, ...part }));

  useLink(state, space, (link) => {
    answers.forget([...answers.all.keys()]);
    setTurns([]);
    setState(link.state);
    setIgnored(link.ignored);
  });

  // Asking.
  const question = (/** @type {string} */ content) => [/** @type {Message} */ ({ role: "user", content })];
  const request = (/** @type {Preference | null} */ preference, text = prompt) =>
    chatRequest(space, settings, preference, question(text));
  const askColumn = (/** @type {Column} */ each, text = prompt) =>
    answers.start(columnKey(each), request(each.preference, text));
  const follow = useFollowing((/** @type {Column} */ each) => {
    const answer = answers.all.get(columnKey(each));
    // Repeat the question of the answer, not the current input.
    if (canAsk && answer !== undefined && answer.status !== "stopped") askColumn(each, questionOf(answer));
  });
  const askAll = (/** @type {string} */ text) => {
    for (const each of columns) askColumn(each, text);
  };
  const askRange = (/** @type {readonly Preference[]} */ preferences, text = prompt) => {
    // The range view shows answers to one question only.
    const others = [...answers.all].filter(([key, answer]) => key.startsWith(RANGE) && questionOf(answer) !== text);
    answers.forget(others.map(([key]) => key));
    for (const preference of preferences) answers.start(rangeKey(preference), request(preference, text));
  };
  const conversation = (/** @type {readonly Turn[]} */ earlier, /** @type {string} */ text) => [
    ...earlier.flatMap(({ id, question: content }) => {
      const reply = answers.all.get(id)?.text;
      return [...question(content), ...(reply ? [/** @type {Message} */ ({ role: "assistant", content: reply })] : [])];
    }),
    ...question(text),
  ];
  const askTurn = (/** @type {readonly Turn[]} */ earlier, /** @type {string} */ text) => {
    const turn = { id: `turn-${(lastTurn += 1)}`, question: text, preference: state.chat };
    answers.forget(turns.slice(earlier.length).map(({ id }) => id));
    setTurns([...earlier, turn]);
    answers.start(turn.id, chatRequest(space, settings, state.chat, conversation(earlier, text)));
  };

  // Steering changes the next turn in a chat, and the chosen column elsewhere.
  const isChat = view === "chat";
  const handles = isChat
    ? [{ label: "", preference: state.chat }]
    : columns.map(({ preference }, index) => ({ label: String(index + 1), preference }));
  const steer = (/** @type {Preference | null} */ preference) => {
    if (isChat) {
      change({ chat: preference });
      return;
    }
    const moved = columns.map((each, index) => (index === chosen ? { ...each, preference } : each));
    change({ columns: moved });
    const each = moved[chosen];
    if (view === "compare" && each !== undefined) follow(each);
  };
  const current = isChat ? state.chat : (columns[chosen]?.preference ?? null);
  const rangePoints = rangeRows(state.range, names.length).flat();
  const marks = rangePoints.map((preference) => ({
    preference,
    isDone: answers.all.get(rangeKey(preference))?.status === "done",
  }));

  const remove = (/** @type {number} */ id) => {
    const gone = columns.findIndex((each) => each.id === id);
    answers.forget(columns.filter((_, index) => index === gone).map(columnKey));
    const left = columns.filter((_, index) => index !== gone);
    change({
      columns: left,
      chosen: Math.min(gone < chosen ? chosen - 1 : chosen, left.length - 1),
      pinned: state.pinned === id ? null : state.pinned,
    });
  };
  const add = (/** @type {Preference | null} */ preference) => {
    const added = column(preference);
    change({ view: "compare", columns: [...columns, added], chosen: columns.length });
    return added;
  };
  const compareFrom = (/** @type {Preference} */ preference) => {
    const answer = answers.all.get(rangeKey(preference));
    const moved = columns[chosen];
    if (columns.length === MOST_COLUMNS && moved) {
      steer(preference);
      change({ view: "compare" });
    }
    const place = columns.length === MOST_COLUMNS && moved ? { ...moved, preference } : add(preference);
    if (answer) askColumn(place, questionOf(answer));
  };
  const copyLink = async () => {
    writeLink(state, space);
    setLinkNote((await copied(location.href, null)) ? "Link copied." : "Copy it from the address bar.");
  };
  const singles = [...answers.all.values()].filter(
    (answer) => answer.status === "done" && answer.preference !== null && answer.text !== "",
  );
  const views = viewsOf(space);

  return html`<div class="workbench">
    <div class="top">
      <nav class="tabs" aria-label="Views">
        ${views.map(
          (each) =>
            html`<button type="button" key=${each} aria-current=${each === view ? "page" : undefined} onClick=${() => change({ view: each })}>${TITLES[each].title}</button>`,
        )}
      </nav>
      ${
        ignored.length > 0 &&
        html`<div class="notice" role="alert">
        <p>Some parts of this link are not valid on this server and were left out: ${shortened(ignored)}.</p>
        <button type="button" onClick=${() => setIgnored([])}>Close</button>
      </div>`
      }
      ${
        (view === "compare" || view === "range") &&
        html`<${PromptBox}
        prompt=${prompt}
        prompts=${space.prompts}
        action=${view === "range" ? "Show the range" : "Ask"}
        isRunning=${answers.running}
        isDisabled=${!canAsk}
        onPrompt=${(/** @type {string} */ text) => change({ prompt: text })}
        onAsk=${(/** @type {string} */ text) => (view === "range" ? askRange(rangePoints, text) : askAll(text))}
        onStop=${() => answers.stop()}
      />`
      }
    </div>
    <div class="side">
    <aside>
      <p class="lead">${TITLES[view].lead}</p>
      ${
        names.length < 2 &&
        html`<p class="hint">
        ${names.length === 0 ? "This server has no preference to steer" : `This adapter has one dimension, ${names[0]}`}.
        Compare the model with its bare base model.
      </p>`
      }
      ${
        view === "range"
          ? names.length === 3 && html`<${Triangle} names=${names} handles=${[]} chosen=${-1} marks=${marks} />`
          : html`<${Steering} space=${space} handles=${handles} chosen=${isChat ? 0 : chosen} onChoose=${(/** @type {number} */ index) => change({ chosen: index })} onChange=${steer} />`
      }
    </aside>
    <section class="more" aria-label="Settings and link">
      <${Settings} settings=${settings} onChange=${(/** @type {ViewState["settings"]} */ value) => change({ settings: value })} />
      <div class="row">
        <button type="button" class="quiet" onClick=${copyLink}><${Icon} name="link" /> Copy link to this view</button>
        <span role="status" class="hint">${linkNote}</span>
      </div>
    </section>
    </div>
    <main>
      ${
        view === "compare" &&
        html`<${Compare}
        columns=${columns}
        chosen=${chosen}
        pinned=${state.pinned}
        names=${names}
        answers=${answers}
        canAsk=${canAsk}
        onChoose=${(/** @type {number} */ index) => change({ chosen: index })}
        onPin=${(/** @type {number | null} */ id) => change({ pinned: id })}
        onAdd=${() => {
          const added = add(current ?? space.start);
          const neighbour = columns
            .map((each) => answers.all.get(columnKey(each)))
            .find((answer) => answer !== undefined);
          if (neighbour) askColumn(added, questionOf(neighbour));
        }}
        onRemove=${remove}
        onAsk=${askColumn}
        onCopy=${(/** @type {Column} */ each) => setAsCode(request(each.preference))}
      />`
      }
      ${
        view === "range" &&
        html`<${RangeView}
        range=${state.range}
        names=${names}
        answers=${answers}
        onRange=${(/** @type {ViewState["range"]} */ range) => change({ range })}
        onAsk=${askRange}
        onSteer=${compareFrom}
      />`
      }
      ${
        view === "measured" &&
        html`<${Measured} evaluation=${server.evaluation} names=${names} chosen=${current} answers=${singles} onChoose=${steer} />`
      }
      ${
        isChat &&
        html`<${Chat}
          turns=${turns}
          names=${names}
          answers=${answers}
          onResend=${(/** @type {number} */ index, /** @type {string} */ text) => askTurn(turns.slice(0, index), text)}
          onCopy=${(/** @type {number} */ index) => {
            const sent = answers.all.get(turns[index]?.id ?? "")?.request;
            if (sent) setAsCode(sent);
          }}
        />
        <div class="composer"><${PromptBox}
          prompt=${draft}
          prompts=${turns.length === 0 ? space.prompts : []}
          action="Send"
          placeholder="Write a message"
          isRunning=${answers.running}
          isDisabled=${!canAsk || answers.running}
          onPrompt=${setDraft}
          onAsk=${(/** @type {string} */ text) => {
            setDraft("");
            askTurn(turns, text);
          }}
          onStop=${() => answers.stop()}
        /></div>`
      }
    </main>
    ${asCode && html`<${CopyDialog} request=${asCode} needsKey=${server.needsKey} onClose=${() => setAsCode(null)} />`}
  </div>`;
}

/** The names, limited in number and length, because a link can contain anything. @param {readonly string[]} names */
const shortened = (names) =>
  [
    ...names.slice(0, NAMES_SHOWN).map((name) => name.slice(0, NAME_SHOWN)),
    ...(names.length > NAMES_SHOWN ? ["…"] : []),
  ].join(", ");

/** @param {import("../answer.js").Answer} answer */
const questionOf = (answer) => answer.request.messages.at(-1)?.content ?? "";

/** @param {ViewState} state @param {import("../view_state.js").Space} space */
function writeLink(state, space) {
  const fragment = toFragment(state, space);
  history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
}

/**
 * Keeps the address in sync with the state, and applies a link that is opened on this page.
 * @param {ViewState} state @param {import("../view_state.js").Space} space
 * @param {(link: ReturnType<typeof fromFragment>) => void} onLink
 */
function useLink(state, space, onLink) {
  useEffect(() => {
    const timer = setTimeout(() => writeLink(state, space), LINK_MS);
    return () => clearTimeout(timer);
  }, [state]);
  const latest = useRef(onLink);
  latest.current = onLink;
  useEffect(() => {
    const open = () => latest.current(fromFragment(location.hash, space));
    addEventListener("hashchange", open);
    return () => removeEventListener("hashchange", open);
  }, []);
}

/**
 * Throttles a callback for a changing value: it is called when the value rests, and periodically while it changes.
 * @template {{id: number}} T
 * @param {(value: T) => void} onRest
 * @returns {(value: T) => void}
 */
function useFollowing(onRest) {
  const latest = useRef(onRest);
  latest.current = onRest;
  const pending = useRef(/** @type {{value: T, timer: number, since: number} | null} */ (null));
  const settle = () => {
    if (pending.current === null) return;
    const { value, timer } = pending.current;
    window.clearTimeout(timer);
    pending.current = null;
    latest.current(value);
  };
  return (value) => {
    if (pending.current !== null && pending.current.value.id !== value.id) settle();
    const now = performance.now();
    const since = pending.current?.since ?? now;
    window.clearTimeout(pending.current?.timer);
    const wait = Math.max(0, Math.min(QUIET_MS, since + PATIENCE_MS - now));
    pending.current = { value, timer: window.setTimeout(settle, wait), since };
  };
}
