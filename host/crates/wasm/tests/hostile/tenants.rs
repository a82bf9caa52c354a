//! Two tenants of one slot: what the first leaves behind, the second does not find.
//!
//! The first fills all that a slot has, four memories and most of its tables, with a pattern. The second looks
//! through all of its own as soon as it begins, then grows them and looks through the rest.

use std::time::Duration;

use loopabull_model::Outcome;

use crate::bed::{Bed, Guest, Store, Trial, deadline, trap};

const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";
const PAGE: u64 = 64 << 10;
/// How many pages each memory is grown to: beyond the 128 KiB that are cleared by writing zeros.
const PAGES: u64 = 8;
const MEMORIES: [&str; 4] = ["0", "$b", "$c", "$d"];
/// As many as there are modules left; a slot has four more.
const TABLES: u64 = 59;
/// How many elements each table begins with, and is grown to: beyond the 16 KiB that are kept.
const FEW: u64 = 100;
const MANY: u64 = 3000;
/// What a tenant holds when everything is grown.
const ALL: u64 = 4 * PAGES * PAGE + 8 * TABLES * MANY;

/// Declares everything but the first memory, which the guest has; they have so many pages at first.
fn stores(pages: u64, content: &'static str) -> Vec<Store> {
    let memory = |name, content| Store::memory(name, &format!("{pages} {PAGES}"), content);
    let memories = [memory("b", content), memory("c", ""), memory("d", "")];
    let table = |n| Store::table(&format!("t{n}"), &format!("{FEW} {MANY}"));
    memories.into_iter().chain((0..TABLES).map(table)).collect()
}

/// Grows everything to its end.
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

/// Writes the pattern everywhere.
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

/// Traps unless all there is now is zero, but for the first bytes of the second memory.
fn look(from: u64) -> String {
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

/// Lets the first tenant end in this way and the second look, several times. The first looks too, at
/// what it left itself the last time: its slot is cleared in another way when the module is the same.
fn check(pages: u64, content: &'static str, end: &str, expected: &Outcome) {
    let bed = Bed::new();
    let looks = |from| format!("{} {} {}", look(from), grow(), look(from));
    let (pages_at_first, begins, ends) =
        (pages.to_string(), looks(content.len() as u64), format!("{} {end}", fill()));
    let guest = Guest { pages: &pages_at_first, ..Guest::default().with(FIELDS) };
    let (full, empty) = (stores(pages, content), stores(pages, ""));
    let first = Guest { start: &begins, body: &ends, stores: &full, ..guest };
    let begins = looks(0);
    let second = Guest { start: &begins, stores: &empty, ..guest };
    let (first, second) = (bed.load(first), bed.load(second));
    for _ in 0..3 {
        for _ in 0..2 {
            let attempt = bed.run(&first, trial(), 1);
            assert_eq!(&attempt.outcome, expected);
            assert_eq!(attempt.usage.memory, ALL);
        }
        for _ in 0..2 {
            let attempt = bed.run(&second, trial(), 1);
            assert_eq!(attempt.outcome, Outcome::Success, "it found what another left");
            assert_eq!(attempt.usage.memory, ALL);
        }
    }
}

const OK: &str = "(i32.store (i32.const 0) (i32.const 0)) (return (i32.const 0))";

#[test]
fn after_success_there_are_zeros_only() {
    // Below, at and beyond what is cleared by writing.
    for pages in [1, 2, 3, PAGES] {
        check(pages, "", OK, &Outcome::Success);
    }
}

#[test]
fn after_a_trap_there_are_zeros_only() {
    check(2, "", "unreachable", &trap(UNREACHABLE));
}

#[test]
fn after_a_deadline_there_are_zeros_only() {
    check(2, "", "(loop $for_ever br $for_ever)", &deadline(trial()));
}

#[test]
fn after_a_memory_with_content_of_its_own_there_are_zeros_only() {
    check(3, "sixteen bytes ..", OK, &Outcome::Success);
}

#[test]
fn one_who_looks_does_see() {
    let bed = Bed::new();
    let looks = look(0);
    let check = |content: &'static str, place: &str| {
        let stores = stores(1, content);
        let fields = format!("{FIELDS} {place}");
        let guest = Guest { start: &looks, stores: &stores, ..Guest::default().with(&fields) };
        let attempt = bed.run(&bed.load(guest), trial(), 1);
        assert_eq!(attempt.outcome, trap(UNREACHABLE), "{place}");
    };
    check("x", "");
    check("", r#"(data (memory $d) (i32.const 65535) "x")"#);
    check("", r#"(data (memory 0) (i32.const 40000) "x")"#);
    check("", "(elem (table $t58) (i32.const 99) func $handle)");
}
