/** Writes a request as code that sends it. */

/** @typedef {import("./api.js").ChatRequest} ChatRequest */

/**
 * @param {ChatRequest} request @param {string} server URL without a trailing slash @param {boolean} needsKey
 */
export function asCurl(request, server, needsKey) {
  const key = needsKey ? ` -H "Authorization: Bearer $PANACEA_API_KEY"` : "";
  const body = shell(JSON.stringify(request, null, 2));
  return `curl ${shell(`${server}/v1/chat/completions`)} -H "Content-Type: application/json"${key} -d ${body}`;
}

/** A text in single quotes for a shell. @param {string} text */
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Code for this project's Python client. @param {ChatRequest} request @param {string} server */
export function asPanaceaClient({ model, messages, ...others }, server) {
  const only = messages.length === 1 ? messages[0] : undefined;
  const question = only?.role === "user" ? python(only.content) : python(messages, 1);
  return [
    "from panacea_client import Panacea",
    "",
    `with Panacea(${python(server)}) as client:  # the key comes from PANACEA_API_KEY`,
    "    answer = client.chat(",
    `        ${question.replaceAll("\n", "\n    ")},`,
    ...arguments_({ model, ...others }).map((line) => `    ${line}`),
    "    )",
    "print(answer.text)",
  ].join("\n");
}

/** Code for OpenAI's Python client. @param {ChatRequest} request @param {string} server */
export function asOpenAI({ preference, ...others }, server) {
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(`${server}/v1`)}, api_key=os.environ.get("PANACEA_API_KEY", "unused"))`,
    "answer = client.chat.completions.create(",
    ...arguments_({ ...others, ...(preference && { extra_body: { preference } }) }),
    ")",
    "print(answer.choices[0].message.content)",
  ].join("\n");
}

/** @param {Record<string, unknown>} values */
const arguments_ = (values) => Object.entries(values).map(([name, value]) => `    ${name}=${python(value, 1)},`);

/**
 * A value as a Python literal. JSON strings are valid Python strings.
 * @param {unknown} value @param {number} level indentation level of the value
 * @returns {string}
 */
function python(value, level = 0) {
  const indent = "    ".repeat(level + 1);
  if (Array.isArray(value)) {
    return `[\n${value.map((each) => `${indent}${python(each, level + 1)},\n`).join("")}${"    ".repeat(level)}]`;
  }
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value)
      .map(([name, each]) => `${python(name)}: ${python(each, level)}`)
      .join(", ")}}`;
  }
  if (value === true || value === false) return value ? "True" : "False";
  return value === null ? "None" : JSON.stringify(value);
}
