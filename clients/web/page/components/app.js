/** The page: its header, the state of the connection, and the workbench. */

import { html } from "../html.js";
import { useAnswers } from "../use_answers.js";
import { useServer } from "../use_server.js";
import { useEffect, useState } from "../vendor/hooks.js";
import { ConnectionNotice, ConnectionState } from "./connection.js";
import { KeyDialog } from "./dialogs.js";
import { IconButton } from "./icon.js";
import { ThemeButton } from "./theme_button.js";
import { Workbench } from "./workbench.js";

export function App() {
  const [traffic, setTraffic] = useState({ isRunning: false, isInDoubt: false });
  const server = useServer(traffic.isRunning, traffic.isInDoubt);
  const answers = useAnswers(server.api);
  const [isAskingForKey, setAskingForKey] = useState(false);
  const { space, failure } = server;
  const isRefused = failure?.kind === "key";

  useEffect(() => {
    const isInDoubt = [...answers.all.values()].some(
      (answer) => answer.failure !== null && answer.failure.kind !== "refused",
    );
    setTraffic((before) =>
      before.isRunning === answers.running && before.isInDoubt === isInDoubt
        ? before
        : { isRunning: answers.running, isInDoubt },
    );
  }, [answers.all]);
  useEffect(() => {
    if (isRefused) setAskingForKey(true);
  }, [isRefused]);
  useEffect(() => {
    if (space) document.title = `Panacea · ${space.model}`;
  }, [space?.model]);

  return html`<header class="masthead">
      <div class="brand">
        <svg viewBox="0 0 32 32" aria-hidden="true"><path d="M16 4 3.5 26h25z" /><circle cx="18" cy="19" r="4.5" /></svg>
        <h1>Panacea</h1>
        ${space && html`<span class="model">${space.model}</span>`}
      </div>
      <div class="tools">
        <${ConnectionState} failure=${failure} isLoaded=${space !== null} />
        ${server.needsKey && html`<${IconButton} icon="key" label="API key" onClick=${() => setAskingForKey(true)} />`}
        <${ThemeButton} />
      </div>
    </header>
    <${ConnectionNotice} failure=${failure} />
    ${
      space
        ? html`<${Workbench} key=${[space.model, ...space.names].join("|")} space=${space} server=${server} answers=${answers} canAsk=${failure === null} />`
        : html`<main class="loading"><p class="hint">${failure ? "" : "Loading the model's preferences…"}</p></main>`
    }
    ${
      isAskingForKey &&
      html`<${KeyDialog}
      isWrong=${isRefused && server.api.key !== null}
      onKey=${(/** @type {string} */ key) => {
        setAskingForKey(false);
        server.setKey(key);
      }}
      onClose=${() => setAskingForKey(false)}
    />`
    }`;
}
