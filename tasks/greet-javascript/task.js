// Greets whoever publishes a greeting: what `greet` does in Rust, in JavaScript.
//
// `greet-javascript.toml`, in the folder above, says for which topics it runs. The modules
// `loopabull:task/…` are what the world `task` imports.

import { get } from "loopabull:task/config@0.1.0";
import { note } from "loopabull:task/context@0.1.0";
import { write } from "loopabull:task/log@0.1.0";

// What the task exports. The name is that of the interface in the world.
export const handler = {
  // Works one message, and says of an exception that nobody caught what it was. Left alone it
  // would end the run as a trap.
  handle(message) {
    try {
      greet(message);
    } catch (thrown) {
      throw thrown instanceof Error ? retry(`${thrown.name}: ${thrown.message}`) : thrown;
    }
  },
};

// Answers a greeting with a log line, and notes how many words it had. Throws `reject` for a
// greeting without words: it will have none the next time either.
function greet(message) {
  const body = JSON.parse(text(message.body));
  for (const field of ["from", "text"]) {
    if (!(field in body)) throw reject(`body does not fit the task: missing field \`${field}\``);
  }
  const words = body.text.split(/\s+/).filter((word) => word !== "").length;
  if (words === 0) throw reject(`\`${body.from}\` said nothing`);

  // From the `[config]` table of the manifest; null if it does not name the key.
  const greeting = get("greeting") ?? "Hello";

  // Kept with the run: `loopabull-host runs` shows the line and the note.
  const fields = [["topic", message.topic], ["words", String(words)]];
  write("info", `${greeting}, ${body.from}!`, fields);
  note("words", String(words));
}

// The two cases of the variant `failure`.
const reject = (reason) => ({ tag: "reject", val: reason });
const retry = (reason) => ({ tag: "retry", val: reason });

// Returns the text of UTF-8 bytes. QuickJS has no `TextDecoder`.
function text(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escaped);
}
