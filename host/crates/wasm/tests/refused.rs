//! Tests of components that are refused at load, with the error and the hint that the operator sees.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;

use loopabull_model::Manifest;
use loopabull_wasm::LoadError;

#[path = "hostile/test_runner.rs"]
mod test_runner;

fn load(bytes: &[u8], manifest: &str) -> Result<(), LoadError> {
    let runner = test_runner::runner(1, None);
    runner.load(bytes, &Manifest::parse(manifest).unwrap(), BTreeMap::new()).map(drop)
}

/// Loads a component and returns the error, followed by `; ` and the hint if there is one.
fn load_error(wat: &str, manifest: &str) -> String {
    let error = load(&wat::parse_str(wat).unwrap(), manifest).unwrap_err();
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

fn check(wat: &str, expected: &str) {
    assert_eq!(load_error(wat, ""), expected);
}

/// Returns a task that imports an empty interface with this name.
fn importing(name: &str) -> String {
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    guest.replacen("(component", &format!("(component (import \"{name}\" (instance))"), 1)
}

fn check_import(name: &str, expected: &str) {
    check(&importing(name), &format!("the component imports `{name}`, {expected}"));
}

#[test]
fn a_file_that_is_not_a_component_is_refused() {
    let error = |bytes: &[u8]| load(bytes, "").unwrap_err().to_string();
    assert!(error(b"").starts_with("the file is not a component"), "{}", error(b""));
    assert!(error(b"\0asm garbage").starts_with("the file is not a component"));
    check(
        "(module)",
        "the file is a WebAssembly module, not a component; \
         build the component with `#[task]` for the target wasm32-wasip2",
    );
}

#[test]
fn a_component_without_a_handler_is_refused() {
    check(
        "(component)",
        "the component does not export `loopabull:task/handler@0.1.0`, so it is not a task; \
         build the component with `#[task]` for the target wasm32-wasip2",
    );
}

#[test]
fn a_missing_grant_is_named_with_the_line_to_add() {
    let grants = [
        ("loopabull:task/emit@0.1.0", "emit", r#"`emit = ["org.example.topic"]` under `[grants]`"#),
        ("loopabull:task/state@0.1.0", "state", r#"`state = "1MiB"` under `[grants]`"#),
        (
            "loopabull:task/secrets@0.1.0",
            "secrets",
            r#"`NAME = { file = "/path" }` under `[grants.secrets]`"#,
        ),
        (
            "wasi:http/outgoing-handler@0.2.6",
            "http",
            r#"`http = ["https://host"]` under `[grants]`"#,
        ),
    ];
    for (import, grant, line) in grants {
        let expected =
            format!("which needs the grant `{grant}`; add to the task's manifest: {line}");
        check_import(import, &expected);
    }
}

#[test]
fn all_missing_grants_are_named_at_once() {
    let state = r#"(import "loopabull:task/state@0.1.0" (instance))"#;
    let wat = importing("loopabull:task/emit@0.1.0").replacen(
        "(component",
        &format!("(component {state}"),
        1,
    );
    let error = load(&wat::parse_str(wat).unwrap(), "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the component imports `loopabull:task/state@0.1.0`, which needs the grant `state`, and \
         `loopabull:task/emit@0.1.0`, which needs the grant `emit`"
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains(r#"`state = "1MiB"`"#) && hint.contains(r#", and `emit = "#), "{hint}");
}

#[test]
fn a_granted_import_is_accepted() {
    let wat = importing("loopabull:task/emit@0.1.0");
    load(&wat::parse_str(wat).unwrap(), "grants.emit = ['a']").unwrap();
}

#[test]
fn sockets_cannot_be_granted() {
    check_import(
        "wasi:sockets/tcp@0.2.6",
        "but sockets cannot be granted to a task; send HTTP requests with `wasi:http` instead",
    );
}

#[test]
fn an_import_of_another_version_is_refused() {
    let hint = "; build the component with the SDK of this host's version";
    check_import(
        "loopabull:task/log@0.2.0",
        &format!("but this host supports version 0.1.0{hint}"),
    );
    check_import("wasi:io/poll@0.3.0", &format!("but this host supports version 0.2{hint}"));
}

#[test]
fn an_unknown_import_is_refused() {
    check_import("acme:thing/other@1.0.0", "which this host does not provide");
    check_import("loopabull:task/magic@0.1.0", "which this host does not provide");
    check_import("plain", "which this host does not provide");
}

#[test]
fn a_handler_of_another_version_is_refused() {
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    check(
        &guest.replace("loopabull:task/handler@0.1.0", "loopabull:task/handler@0.2.0"),
        "the component exports `loopabull:task/handler@0.2.0`, but this host supports version 0.1.0; \
         build the component with the SDK of this host's version",
    );
}

#[test]
fn a_later_patch_version_is_accepted() {
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let later = guest.replace("@0.1.0", "@0.1.7");
    load(&wat::parse_str(later).unwrap(), "").unwrap();
}

#[test]
fn a_handler_of_another_type_is_refused() {
    let error = load_error(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $h (export "handle" (func $f)))
            (export "loopabull:task/handler@0.1.0" (instance $h)))"#,
        "",
    );
    let expected = "the component does not fit the world `loopabull:task/granted@0.1.0`: `handle` has the wrong type:";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn nested_components_that_define_resources_are_refused() {
    let inside = |definition: &str| {
        let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
        guest.replacen("(component", &format!("(component (component {definition})"), 1)
    };
    check(
        &inside("(type (resource (rep i32)))"),
        "the component has nested components that define resources, which this host does not support; deploy each part as a separate task",
    );
    load(&wat::parse_str(inside("(core module)")).unwrap(), "").unwrap();
}

#[test]
fn deep_nesting_and_many_exports_are_refused() {
    let deep = format!("{}{}", "(component ".repeat(12), ")".repeat(12));
    let expected = "the component has more than 1000 imports and exports, or components nested deeper than 8 levels";
    check(&deep, expected);
    let exports: String = (0..1001).map(|n| format!("(export \"e{n}\" (instance $h))")).collect();
    check(&format!("(component (instance $h) {exports})"), expected);
}

/// Returns the start of a component with instance types nested this deep. The bytes are assembled by hand,
/// because no tool writes such a component.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut body = vec![1];
    for _ in 0..depth {
        body.extend([0x42, 1, 1]);
    }
    body.extend([0x42, 0]);
    let mut bytes = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    bytes
}

#[test]
fn deeply_nested_types_are_refused() {
    let handler = wat::parse_str(
        "(component (instance $h) (export \"loopabull:task/handler@0.1.0\" (instance $h)))",
    )
    .unwrap();
    let error = |depth| {
        let bytes = [nested_types(depth), handler[8..].to_vec()].concat();
        load(&bytes, "").unwrap_err().to_string()
    };
    // wasmtime accepts this depth, so the error is about the missing export.
    assert!(error(999).ends_with("does not have export `handle`"), "{}", error(999));
    assert_eq!(error(1_000), "the component has more than 1000 nested types");
    assert_eq!(error(1_000_000), "the component has more than 1000 nested types");
    // wasmtime itself refuses lists of lists that are nested too deep.
    let mut lists = String::from("(type $l0 (list u8))");
    for n in 1..10_000 {
        lists += &format!("(type $l{n} (list $l{}))", n - 1);
    }
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let import = format!(
        "(import \"loopabull:task/log@0.1.0\" (instance {lists} (export \"t\" (type (eq $l9999)))))"
    );
    for deep in [lists, import] {
        let wat = guest.replacen("(component", &format!("(component {deep}"), 1);
        let error = load_error(&wat, "");
        assert!(error.contains("type nesting is too deep"), "{error}");
    }
}

#[test]
fn a_hundred_thousand_exports_are_refused() {
    let exports: String =
        (0..100_000).map(|n| format!("(export \"e{n}\" (instance $h))")).collect();
    let expected = "the component has more than 1000 imports and exports, or components nested deeper than 8 levels";
    check(&format!("(component (instance $h) {exports})"), expected);
    // Here the many exports are those of an exported instance, not of the component itself.
    let exports: String =
        (0..100_000).map(|n| format!("(export \"e{n}\" (func $handle))")).collect();
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let wat = guest.replace(
        "(instance $handler (export \"handle\" (func $handle)))",
        &format!("(instance $handler (export \"handle\" (func $handle)) {exports})"),
    );
    check(
        &wat,
        "the component cannot be compiled: failed to parse WebAssembly module: \
         instantiation exports size is out of bounds (at offset 0x1ce)",
    );
}

#[test]
fn control_characters_in_names_are_escaped_in_errors() {
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let import = r#"(core module $m (import "env" "evil\n\1b[31m\e2\80\ae" (func))"#;
    let wat = guest
        .replacen("(core module $m", import, 1)
        .replace("(instantiate $m)", "(instantiate $m (with \"env\" (instance)))");
    check(
        &wat,
        "the component cannot be compiled: failed to parse WebAssembly module: module instantiation argument \
         `env` does not export an item named `evil\\n\\u{1b}[31m\\u{202e}` (at offset 0x194)",
    );
}

#[test]
fn a_component_with_too_many_modules_is_refused() {
    let instances: String = (0..70).map(|_| "(core instance (instantiate $m))").collect();
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let end = guest.rfind("(export \"loopabull").unwrap();
    let wat = format!(
        "{}(core module $x) {} {}",
        &guest[..end],
        instances.replace("$m", "$x"),
        &guest[end..]
    );
    let error = load_error(&wat, "");
    assert!(error.contains("core module instances"), "{error}");
}

#[test]
fn a_missing_granted_directory_is_named() {
    let guest = include_str!("guests/guest.wat").replace("BODY", "i32.const 0");
    let manifest = "grants.dirs = [{ host = '/no/such/place', guest = '/x' }]";
    let error = load_error(&guest, manifest);
    assert_eq!(error, "cannot open the granted directory `/no/such/place`");
}
