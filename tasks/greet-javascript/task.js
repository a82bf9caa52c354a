// Answers a greeting with a log line: the JavaScript version of the Rust example `greet`.
//
// The manifest `greet-javascript.toml`, in the parent folder, sets the topics of the task. The modules
// `loopabull:task/…` are the interfaces that the world `task` imports.

import { get } from "loopabull:task/config@0.1.0";
import { note } from "loopabull:task/context@0.1.0";
import { write } from "loopabull:task/log@0.1.0";

// The export of the task. Its name is the name of the interface in the world.
export const handler = {
  // Handles one message, and turns an uncaught exception into a retry. Without this the exception
  // would end the run with a trap.
  handle(message) {
    try {
      greet(message);
    } catch (thrown) {
      throw thrown instanceof Error ? retry(`${thrown.name}: ${thrown.message}`) : thrown;
    }
  },
};

// Answers a greeting with a log line, and notes the number of its words. Throws `reject` for a greeting
// without words, because another attempt would find none either.
function greet(message) {
  const body = JSON.parse(text(message.body));
  for (const field of ["from", "text"]) {
    if (!(field in body)) throw reject(`body does not fit the task: missing field \`${field}\``);
  }
  const words = body.text.split(/\s+/).filter((word) => word !== "").length;
  if (words === 0) throw reject(`\`${body.from}\` said nothing`);

  // The value is in the `[config]` table of the manifest; null if the table does not have the key.
  const greeting = get("greeting") ?? "Hello";

  // The log line and the note are stored with the run; `loopabull-host runs` shows them.
  const fields = [["topic", message.topic], ["words", String(words)]];
  write("info", `${greeting}, ${body.from}!`, fields);
  note("words", String(words));
}

// The two cases of the variant `failure`.
const reject = (reason) => ({ tag: "reject", val: reason });
const retry = (reason) => ({ tag: "retry", val: reason });

// Decodes UTF-8 bytes. QuickJS has no `TextDecoder`.
function text(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escaped);
}
