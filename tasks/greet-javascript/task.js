// Answers a greeting with a log line: the JavaScript version of the Rust example `greet`.
//
// The manifest `greet-javascript.toml`, in the parent folder, sets the topics of the task. The modules
// `loopabull:task/…` are the interfaces that the world `task` imports.

import { get } from "loopabull:task/config@0.1.0";
import { note } from "loopabull:task/context@0.1.0";
import { write } from "loopabull:task/log@0.1.0";

// The exported interface `handler` of the task. The constant must have the name of the interface.
export const handler = {
  // Handles one message, and turns an exception into a retry. An uncaught exception would end the run with a
  // trap.
  handle(message) {
    try {
      greet(message);
    } catch (thrown) {
      throw thrown instanceof Error ? retry(`${thrown.name}: ${thrown.message}`) : thrown;
    }
  },
};

// Answers a greeting with a log line, and stores a note with the number of words. Rejects a greeting without
// words, because another attempt would fail too.
function greet(message) {
  const body = JSON.parse(text(message.body));
  for (const field of ["from", "text"]) {
    if (!(field in body)) throw reject(`body does not fit the task: missing field \`${field}\``);
  }
  const words = body.text.split(/\s+/).filter((word) => word !== "").length;
  if (words === 0) throw reject(`\`${body.from}\` said nothing`);

  // The value comes from the `[config]` table of the manifest. The value is null if the table does not have
  // the key.
  const greeting = get("greeting") ?? "Hello";

  // The log line and the note are stored with the run. `loopabull-host runs show ID` shows both.
  const fields = [["topic", message.topic], ["words", String(words)]];
  write("info", `${greeting}, ${body.from}!`, fields);
  note("words", String(words));
}

// Functions that make the two cases of the variant `failure`.
const reject = (reason) => ({ tag: "reject", val: reason });
const retry = (reason) => ({ tag: "retry", val: reason });

// Decodes UTF-8 bytes. QuickJS has no `TextDecoder`, so `decodeURIComponent` decodes the bytes.
function text(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escaped);
}
