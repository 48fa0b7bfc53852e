/** Decodes server-sent events, as the HTML standard defines them, from bytes that may be split anywhere. */

/** @typedef {{event: string, data: string}} ServerEvent */

/**
 * The events of a response's body as they arrive. An incomplete event at the end is dropped.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* serverEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let afterReturn = false;
  let event = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A carriage return ends its line at once. A line feed at the start of the next piece belongs to the same line end.
      rest += afterReturn && value.startsWith("\n") ? value.slice(1) : value;
      afterReturn = value.endsWith("\r");
      const lines = rest.split(/\r\n|\n|\r/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const [, field, text] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line) ?? [];
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n") };
          [event, data] = ["", []];
        } else if (field === "event") event = text ?? "";
        else if (field === "data") data.push(text ?? "");
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
