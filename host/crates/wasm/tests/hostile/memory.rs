//! Tests with guests that exceed their memory limit, with one or several linear memories and tables.

use loopabull_model::Outcome;

use crate::test_host::{Guest, Store, TestHost, Trial, memory, trap};

const PAGE: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";

#[test]
fn memory_that_is_filled_to_its_limit_is_released() {
    let guest = Guest::of(
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (memory.fill (i32.const 8192) (i32.const 0xaa)
           (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8192)))
         unreachable",
    );
    let expected = memory(32 * MIB, 513 * PAGE);
    let attempt = TestHost::new().check(guest, Trial::default().memory(32 * MIB), &expected);
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
    // First the memories have 1 + 3 * 100 pages. Then two of them grow to 200 pages, and the growth of the
    // third memory exceeds the limit.
    let expected = memory(32 * MIB, 601 * PAGE);
    TestHost::new().check(guest, Trial::default().memory(32 * MIB), &expected);
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
    TestHost::new().check(guest, Trial::default(), &memory(MIB, PAGE + 8 * 130_000));
}

#[test]
fn reported_memory_is_the_sum_of_memories_and_tables() {
    let stores = [Store::memory("m", "1", ""), Store::table("t", "24")];
    let guest = Guest::of(
        "(drop (memory.grow $m (i32.const 2)))
         (drop (table.grow $t (ref.null func) (i32.const 1000)))
         (return (i32.const 0))",
    )
    .storing(&stores);
    let attempt = TestHost::new().check(guest, Trial::default(), &Outcome::Success);
    assert_eq!(attempt.usage.memory, 4 * PAGE + 8 * 1024);
}

#[test]
fn growth_beyond_the_guests_own_maximum_does_not_count() {
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
    let attempt = TestHost::new().check(guest, Trial::default(), &Outcome::Success);
    assert_eq!(attempt.usage.memory, 12 * PAGE + 80);
    // The growth beyond the memory's own maximum is not reported as an exceeded limit. The later trap is
    // reported.
    let guest = Guest::of("(drop (memory.grow $small (i32.const 20))) unreachable");
    TestHost::new().check(guest.storing(&stores), Trial::default(), &trap(UNREACHABLE));
}

#[test]
fn growing_a_table_beyond_its_slot_is_no_memory_limit() {
    let tables = [Store::table("t", "0")];
    // The pool allows at most 100,000 elements in a table, fewer than the memory limit would. A growth beyond
    // that makes `table.grow` return -1. No limit of the run was exceeded, so the outcome is the later trap.
    let guest = Guest::of(
        "(if (i32.eq (table.grow $t (ref.null func) (i32.const 100001)) (i32.const -1))
           (then unreachable))
         (return (i32.const 0))",
    )
    .storing(&tables);
    TestHost::new().check(guest, Trial::default().memory(32 * MIB), &trap(UNREACHABLE));
}

#[test]
fn a_memory_that_starts_beyond_its_limit_is_not_created() {
    let host = TestHost::new();
    let greedy = host.load(Guest { pages: "1000", ..Guest::default() });
    for _ in 0..50 {
        let attempt = host.run(&greedy, Trial::default(), 1);
        assert_eq!(attempt.outcome, memory(MIB, 1000 * PAGE));
    }
    host.check(Guest::default(), Trial::default(), &Outcome::Success);
}

#[test]
fn a_component_larger_than_a_slot_is_refused_at_load() {
    let host = TestHost::new();
    let check = |stores: &[Store], fields: &str, expected: &str| {
        let loaded = host.try_load(&Guest::default().storing(stores).with(fields).to_wat());
        let error = loaded.map(drop).unwrap_err().to_string();
        assert_eq!(error, format!("the component cannot be compiled: {expected}"));
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
