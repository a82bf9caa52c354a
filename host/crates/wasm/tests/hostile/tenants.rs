//! Tests with two tenants: two components that use the same slot of the instance pool one after the other.
//! The second tenant must find no data of the first.
//!
//! The first tenant fills its four memories and most of its tables with a pattern. The second tenant searches
//! its memories and tables for data when it starts. Then it grows them and searches the new parts.

use std::time::Duration;

use loopabull_model::Outcome;

use crate::test_host::{Guest, Store, TestHost, Trial, deadline, trap};

const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";
const PAGE: u64 = 64 << 10;
/// Number of pages to which each memory is grown. The grown memory is larger than the 128 KiB that the pool
/// zeroes.
const PAGES: u64 = 8;
const MEMORIES: [&str; 4] = ["0", "$b", "$c", "$d"];
/// Number of tables. A slot has room for more, but each table needs a module of its own, and the number of
/// modules is limited.
const TABLES: u64 = 59;
/// Number of elements in a new table (`FEW`), and number to which the table is grown (`MANY`). The grown
/// table is larger than the 16 KiB that stay resident.
const FEW: u64 = 100;
const MANY: u64 = 3000;
/// Memory of a tenant after all memories and tables are grown.
const ALL: u64 = 4 * PAGES * PAGE + 8 * TABLES * MANY;

/// Declares all memories and tables except the first memory, which the template of the guest declares. Each
/// memory starts with this many pages.
fn stores(pages: u64, content: &'static str) -> Vec<Store> {
    let memory = |name, content| Store::memory(name, &format!("{pages} {PAGES}"), content);
    let memories = [memory("b", content), memory("c", ""), memory("d", "")];
    let table = |n| Store::table(&format!("t{n}"), &format!("{FEW} {MANY}"));
    memories.into_iter().chain((0..TABLES).map(table)).collect()
}

/// Returns code that grows all memories and tables to their maximum.
fn grow() -> String {
    let memories = MEMORIES.map(|memory| {
        format!(
            "(drop (memory.grow {memory} (i32.sub (i32.const {PAGES}) (memory.size {memory}))))\n"
        )
    });
    let tables: String = (0..TABLES)
        .map(|n| {
            let more = MANY - FEW;
            format!("(drop (table.grow $t{n} (ref.null func) (i32.const {more})))\n")
        })
        .collect();
    memories.concat() + &tables
}

/// Returns code that fills all memories and tables with a pattern.
fn fill() -> String {
    let memories = MEMORIES.map(|memory| {
        format!(
            "(memory.fill {memory} (i32.const 0) (i32.const 0xa5)
               (i32.mul (memory.size {memory}) (i32.const 65536)))\n"
        )
    });
    let tables: String = (0..TABLES)
        .map(|n| {
            format!("(table.fill $t{n} (i32.const 0) (ref.func $handle) (table.size $t{n}))\n")
        })
        .collect();
    format!(
        "{} {tables} (global.set $word (i64.const -1)) (global.set $number (f64.const 1))",
        memories.concat()
    )
}

/// Returns code that traps unless everything is zero. In the second memory, the first `from` bytes are not
/// checked.
fn search(from: u64) -> String {
    let memories = MEMORIES.map(|memory| {
        let from = if memory == "$b" { from } else { 0 };
        format!(
            "(call $seek (i32.const {from}))
             (loop $next
               (if (i64.ne (i64.load {memory} (global.get $at)) (i64.const 0)) (then unreachable))
               (br_if $next (i32.lt_u (call $step (i32.const 8))
                 (i32.mul (memory.size {memory}) (i32.const 65536)))))\n"
        )
    });
    let tables: String = (0..TABLES)
        .map(|n| {
            format!(
                "(call $seek (i32.const 0))
                 (loop $next
                   (if (i32.eqz (ref.is_null (table.get $t{n} (global.get $at)))) (then unreachable))
                   (br_if $next (i32.lt_u (call $step (i32.const 1)) (table.size $t{n}))))\n"
            )
        })
        .collect();
    format!(
        "{} {tables}
         (if (i64.ne (global.get $word) (i64.const 0)) (then unreachable))
         (if (f64.ne (global.get $number) (f64.const 0)) (then unreachable))",
        memories.concat()
    )
}

const FIELDS: &str = "
    (global $word (mut i64) (i64.const 0)) (global $number (mut f64) (f64.const 0))
    (global $at (mut i32) (i32.const 0))
    (func $seek (param i32) (global.set $at (local.get 0)))
    (func $step (param i32) (result i32)
      (global.set $at (i32.add (global.get $at) (local.get 0)))
      (global.get $at))";

fn trial() -> Trial {
    Trial { timeout: Duration::from_millis(300), ..Trial::default() }.memory(ALL)
}

/// Runs both tenants several times in turn. `end` is the code with which the first tenant ends. The first
/// tenant also searches for its own data from an earlier run, because the pool clears a slot differently if
/// the same module uses the slot again.
fn check(pages: u64, content: &'static str, end: &str, expected: &Outcome) {
    let host = TestHost::new();
    let search_all = |from| format!("{} {} {}", search(from), grow(), search(from));
    let (first_pages, start, body) =
        (pages.to_string(), search_all(content.len() as u64), format!("{} {end}", fill()));
    let guest = Guest { pages: &first_pages, ..Guest::default().with(FIELDS) };
    let (full, empty) = (stores(pages, content), stores(pages, ""));
    let first = Guest { start: &start, body: &body, stores: &full, ..guest };
    let start = search_all(0);
    let second = Guest { start: &start, stores: &empty, ..guest };
    let (first, second) = (host.load(first), host.load(second));
    for _ in 0..3 {
        for _ in 0..2 {
            let attempt = host.run(&first, trial(), 1);
            assert_eq!(&attempt.outcome, expected);
            assert_eq!(attempt.usage.memory, ALL);
        }
        for _ in 0..2 {
            let attempt = host.run(&second, trial(), 1);
            assert_eq!(
                attempt.outcome,
                Outcome::Success,
                "the second tenant found data of the first"
            );
            assert_eq!(attempt.usage.memory, ALL);
        }
    }
}

const OK: &str = "(i32.store (i32.const 0) (i32.const 0)) (return (i32.const 0))";

#[test]
fn a_slot_is_cleared_after_success() {
    // The sizes are below, at and beyond the part that the pool zeroes.
    for pages in [1, 2, 3, PAGES] {
        check(pages, "", OK, &Outcome::Success);
    }
}

#[test]
fn a_slot_is_cleared_after_a_trap() {
    check(2, "", "unreachable", &trap(UNREACHABLE));
}

#[test]
fn a_slot_is_cleared_after_a_deadline() {
    check(2, "", "(loop $forever br $forever)", &deadline(trial()));
}

#[test]
fn a_slot_is_cleared_after_a_memory_with_initial_content() {
    check(3, "sixteen bytes ..", OK, &Outcome::Success);
}

#[test]
fn the_search_finds_data() {
    let host = TestHost::new();
    let search = search(0);
    let check = |content: &'static str, place: &str| {
        let stores = stores(1, content);
        let fields = format!("{FIELDS} {place}");
        let guest = Guest { start: &search, stores: &stores, ..Guest::default().with(&fields) };
        let attempt = host.run(&host.load(guest), trial(), 1);
        assert_eq!(attempt.outcome, trap(UNREACHABLE), "{place}");
    };
    check("x", "");
    check("", r#"(data (memory $d) (i32.const 65535) "x")"#);
    check("", r#"(data (memory 0) (i32.const 40000) "x")"#);
    check("", "(elem (table $t58) (i32.const 99) func $handle)");
}
