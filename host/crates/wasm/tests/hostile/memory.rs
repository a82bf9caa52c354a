//! Guests that want all memory there is: linear memories and tables, one or many.

use loopabull_model::Outcome;

use crate::bed::{Bed, Guest, Store, Trial, memory, trap};

const PAGE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";

#[test]
fn memory_that_is_filled_to_its_limit_is_given_back() {
    let guest = Guest::of(
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (memory.fill (i32.const 8192) (i32.const 0xaa)
           (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8192)))
         unreachable",
    );
    let expected = memory(32 * MIB, 513 * PAGE);
    let attempt = Bed::new().check(guest, Trial::default().memory(32 * MIB), &expected);
    assert_eq!(attempt.usage.memory, 497 * PAGE);
}

#[test]
fn several_memories_count_together() {
    let memories = ["a", "b", "c"].map(|name| Store::memory(name, "0", ""));
    let guest = Guest::of(
        "(loop $more
           (br_if $more (i32.and
             (i32.ne (memory.grow $a (i32.const 100)) (i32.const -1))
             (i32.and
               (i32.ne (memory.grow $b (i32.const 100)) (i32.const -1))
               (i32.ne (memory.grow $c (i32.const 100)) (i32.const -1))))))
         unreachable",
    )
    .storing(&memories);
    // One page, then three memories of 100 pages each, then two of 200: the third one is too much.
    let expected = memory(32 * MIB, 601 * PAGE);
    Bed::new().check(guest, Trial::default().memory(32 * MIB), &expected);
}

#[test]
fn tables_count_with_the_memories() {
    let tables = ["t", "u"].map(|name| Store::table(name, "0"));
    let guest = Guest::of(
        "(loop $more
           (br_if $more (i32.and
             (i32.ne (table.grow $t (ref.func $handle) (i32.const 10000)) (i32.const -1))
             (i32.ne (table.grow $u (ref.func $handle) (i32.const 10000)) (i32.const -1)))))
         unreachable",
    )
    .storing(&tables);
    Bed::new().check(guest, Trial::default(), &memory(MIB, PAGE + 8 * 130_000));
}

#[test]
fn what_a_run_held_is_the_sum_of_all() {
    let stores = [Store::memory("m", "1", ""), Store::table("t", "24")];
    let guest = Guest::of(
        "(drop (memory.grow $m (i32.const 2)))
         (drop (table.grow $t (ref.null func) (i32.const 1000)))
         (return (i32.const 0))",
    )
    .storing(&stores);
    let attempt = Bed::new().check(guest, Trial::default(), &Outcome::Success);
    assert_eq!(attempt.usage.memory, 4 * PAGE + 8 * 1024);
}

#[test]
fn a_growth_that_the_guest_itself_ruled_out_does_not_count() {
    let memories = [Store::memory("small", "1 1", ""), Store::memory("big", "0", "")];
    let stores = memories.into_iter().chain([Store::table("few", "10 10")]).collect::<Vec<_>>();
    let guest = Guest::of(
        "(local.set $n (i32.const 1000))
         (loop $again
           (drop (memory.grow $small (i32.const 1)))
           (drop (table.grow $few (ref.null func) (i32.const 10)))
           (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (if (i32.eq (memory.grow $big (i32.const 10)) (i32.const -1)) (then unreachable))
         (return (i32.const 0))",
    )
    .storing(&stores);
    let attempt = Bed::new().check(guest, Trial::default(), &Outcome::Success);
    assert_eq!(attempt.usage.memory, 12 * PAGE + 80);
    // And what traps after it has not run into our limit.
    let guest = Guest::of("(drop (memory.grow $small (i32.const 20))) unreachable");
    Bed::new().check(guest.storing(&stores), Trial::default(), &trap(UNREACHABLE));
}

#[test]
fn a_table_of_more_elements_than_a_slot_has_is_the_guests_trouble() {
    let tables = [Store::table("t", "0")];
    // The slot has 100,000, the memory would allow for more: `table.grow` says -1, and no limit that
    // an operator can set was hit.
    let guest = Guest::of(
        "(if (i32.eq (table.grow $t (ref.null func) (i32.const 100001)) (i32.const -1))
           (then unreachable))
         (return (i32.const 0))",
    )
    .storing(&tables);
    Bed::new().check(guest, Trial::default().memory(32 * MIB), &trap(UNREACHABLE));
}

#[test]
fn a_memory_that_begins_beyond_its_limit_is_not_made() {
    let bed = Bed::new();
    let greedy = bed.load(Guest { pages: "1000", ..Guest::default() });
    for _ in 0..50 {
        let attempt = bed.run(&greedy, Trial::default(), 1);
        assert_eq!(attempt.outcome, memory(MIB, 1000 * PAGE));
    }
    bed.check(Guest::default(), Trial::default(), &Outcome::Success);
}

#[test]
fn more_than_a_slot_can_hold_is_refused_at_load() {
    let bed = Bed::new();
    let check = |stores: &[Store], fields: &str, expected: &str| {
        let loaded = bed.try_load(&Guest::default().storing(stores).with(fields).to_wat());
        let said = loaded.map(drop).unwrap_err().to_string();
        assert_eq!(said, format!("it cannot be compiled: {expected}"));
    };
    let named = |many: u32, make: fn(&str) -> Store| -> Vec<_> {
        (0..many).map(|n| make(&format!("s{n}"))).collect()
    };
    check(
        &named(4, |name| Store::memory(name, "1", "")),
        "",
        "The component transitively contains 5 Wasm linear memories, which exceeds the \
         configured maximum of 4 in the pooling allocator",
    );
    check(
        &named(63, |name| Store::table(name, "1")),
        "",
        "The component transitively contains 65 core module instances, which exceeds \
         the configured maximum of 64 in the pooling allocator",
    );
    check(
        &[],
        "(memory 1) (memory 1)",
        "module memory does not fit in pooling allocator requirements: defined memories \
         count of 2 exceeds the per-instance limit of 1",
    );
    check(
        &[],
        "(table 1 funcref) (table 1 funcref)",
        "module table does not fit in pooling allocator requirements: defined tables \
         count of 2 exceeds the per-instance limit of 1",
    );
    check(
        &[],
        "(memory 20000)",
        "module memory does not fit in pooling allocator requirements: memory index 1 \
         is unsupported in this pooling allocator configuration: memory has a minimum \
         byte size of 1310720000 which exceeds the limit of 0x40000000 bytes",
    );
    check(
        &[],
        "(table 100001 funcref)",
        "module table does not fit in pooling allocator requirements: table index 0 has \
         a minimum element size of 100001 which exceeds the limit of 100000",
    );
}
