//! The promise to task authors: a component runs on all later hosts of its track (0.1.x). One test runs a
//! component that was built for the first version of the interface. The other compares the present interface,
//! in WIT, with a snapshot.

use std::fs;

use crate::test_host::{TestHost, message, repository, text};

#[test]
fn a_component_of_the_first_version_still_runs() {
    let host = TestHost::new();
    let component = repository().join("tests/fixtures/compat/greet-0.1.0.wasm");
    host.write("tasks/greet.wasm", fs::read(component).unwrap());
    host.write("tasks/greet.toml", "topics = ['said']\n[config]\ngreeting = 'Good day'\n");
    let check = |body: &str, code: i32, expected: &str| {
        host.write("message.json", message("m-1", "said", body));
        let output = host.run(&["test", "greet", "message.json"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "`{expected}` is not in:\n{said}");
    };
    check(r#"{"from":"ada","text":"one two"}"#, 0, "greet on message m-1: success\n");
    check(
        r#"{"from":"ada","text":"one two"}"#,
        0,
        "info: Good day, ada! topic=said words=2\nnote: words = 2\n",
    );
    let silent = "greet on message m-1: reject: `ada` said nothing\n";
    check(r#"{"from":"ada","text":" "}"#, 1, silent);
    check("{}", 1, "greet on message m-1: reject: body does not fit the task: missing field");
}

/// A change of this snapshot affects every component. `wit/README.md` lists the allowed changes.
#[test]
fn the_world_of_components_is_unchanged() {
    let text = fs::read_to_string(repository().join("wit/task.wit")).unwrap();
    let lines = text.lines().filter(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//")
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    package loopabull:task@0.1.0;
    @since(version = 0.1.0)
    interface types {
      record message {
        id: string,
        topic: string,
        headers: list<tuple<string, string>>,
        body: list<u8>,
      }
      variant failure {
        retry(string),
        reject(string),
      }
    }
    @since(version = 0.1.0)
    interface context {
      run-id: func() -> string;
      attempt: func() -> u32;
      deadline-ms: func() -> u64;
      retry-after-ms: func(ms: u64);
      note: func(key: string, value: string);
    }
    @since(version = 0.1.0)
    interface log {
      enum level { trace, debug, info, warn, error }
      write: func(level: level, text: string, fields: list<tuple<string, string>>);
    }
    @since(version = 0.1.0)
    interface config {
      get: func(key: string) -> option<string>;
    }
    @since(version = 0.1.0)
    interface emit {
      publish: func(topic: string, headers: list<tuple<string, string>>, body: list<u8>)
        -> result<_, string>;
    }
    @since(version = 0.1.0)
    interface state {
      get: func(key: string) -> option<list<u8>>;
      set: func(key: string, value: list<u8>) -> result<_, string>;
      delete: func(key: string);
      compare-and-swap: func(key: string, expected: option<list<u8>>, new: option<list<u8>>)
        -> result<bool, string>;
    }
    @since(version = 0.1.0)
    interface secrets {
      get: func(name: string) -> option<string>;
    }
    @since(version = 0.1.0)
    interface handler {
      use types.{message, failure};
      handle: func(message: message) -> result<_, failure>;
    }
    world task {
      import context;
      import log;
      import config;
      export handler;
    }
    world granted {
      include task;
      import emit;
      import state;
      import secrets;
    }
    ");
}
