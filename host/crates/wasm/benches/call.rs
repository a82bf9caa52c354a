//! Benchmark: the cost of one call of a component, and of each step of the call.
//!
//! Run `cargo tasks` first, then `cargo bench -p loopabull-wasm`. One run measures: calls with a fresh
//! instance for each message, as in the product; the same functions, compiled natively; calls of a reused
//! instance; each step of a call; loading a component from the cache and compiling it; and the memory of live
//! instances.
#![expect(clippy::unwrap_used, reason = "in a bench a panic is the report")]
#![expect(clippy::print_stdout, reason = "criterion cannot measure memory, so it is printed")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use loopabull_egress::{EgressLimits, TlsRoots};
use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Manifest, Message, RunId};
use loopabull_task::test;
use loopabull_wasm::{Call, Component, ComponentRunner, EgressSetup, Setup, Source, bench_support};
use tokio::runtime::Runtime;

// Two example tasks are compiled natively into this benchmark. The tests of these tasks are compiled too, but
// not run.
#[path = "../../../../tasks/greet/src/lib.rs"]
#[allow(unused_imports, dead_code, private_interfaces, reason = "a crate of its own elsewhere")]
mod greeting;
#[path = "../../../../tasks/block-retired/src/lib.rs"]
#[allow(unused_imports, dead_code, private_interfaces, reason = "a crate of its own elsewhere")]
mod retirement;

use greeting::greet;
use retirement::block_retired;

/// The number of live instances from which the average memory of an instance is measured.
const LIVE: u32 = 500;

/// A task and a message for it.
struct Case {
    name: &'static str,
    component: Component,
    message: Message,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let runner = runner(1, None);
    let minimal = include_str!("../tests/guests/guest.wat").replace("BODY", "i32.const 0");
    let minimal = wat::parse_str(minimal).unwrap();
    let push = push();
    let cases = [
        case(&runner, "minimal", &minimal, "", "a.b", "{}"),
        example(&runner, "greet", GREETING_TOPIC, GREETING),
        example(&runner, "block-retired", PUSH_TOPIC, &push),
        example(&runner, "greet-javascript", GREETING_TOPIC, GREETING),
        example(&runner, "greet-python", GREETING_TOPIC, GREETING),
    ];
    let mut criterion = Criterion::default().configure_from_args();
    for case in &cases {
        fresh(&mut criterion, &runtime, &runner, case);
    }
    for case in &cases[1..3] {
        parts(&mut criterion, &runtime, &runner, case);
    }
    native(&mut criterion, &push);
    load(&mut criterion);
    measure_memory(&runtime, &cases[..3]);
    criterion.final_summary();
}

const GREETING_TOPIC: &str = "org.example.prod.greeting.new";
const GREETING: &str = r#"{"from":"Ada","text":"good morning"}"#;
const PUSH_TOPIC: &str = "org.fedoraproject.prod.git.receive";

/// Returns the body of a message about a git push. The body has 1 KiB, and no file in it retires a package.
fn push() -> String {
    let body = |summary: &str| {
        format!(
            r#"{{"agent":"ada","commit":{{"namespace":"rpms","repo":"fish","branch":"rawhide","rev":"0123456789abcdef0123456789abcdef01234567","email":"ada@example.org","name":"Ada","summary":"{summary}","stats":{{"files":{{"fish.spec":{{"additions":3,"deletions":1,"lines":4}},"sources":{{"additions":1,"deletions":1,"lines":2}}}},"total":{{"additions":4,"deletions":2,"files":2,"lines":6}}}}}}}}"#
        )
    };
    let empty = body("").len();
    body(&"x".repeat(1024 - empty))
}

fn runner(instances: u32, cache: Option<&Path>) -> ComponentRunner {
    let egress =
        EgressSetup { limits: EgressLimits::default(), tls_roots: TlsRoots::load(None).unwrap() };
    // No directory can be created below a device file, so this runner cannot use a cache.
    let cache = cache.unwrap_or(Path::new("/dev/null/cache")).to_owned();
    ComponentRunner::new(&Setup { instances, cache, egress }).unwrap()
}

fn case(
    runner: &ComponentRunner,
    name: &'static str,
    wasm: &[u8],
    manifest: &str,
    topic: &str,
    msg: &str,
) -> Case {
    let manifest = Manifest::parse(manifest).unwrap();
    let component = runner.load(wasm, &manifest, BTreeMap::new()).map_err(|e| e.to_string());
    let body = format!(r#"{{"msg_id":"2026-1","msg":{msg}}}"#);
    let envelope = Envelope::parse(&[topic.as_bytes(), body.as_bytes()], 2).unwrap();
    let message = Verifier::Off.verify(envelope, 0).unwrap();
    Case { name, component: component.unwrap(), message }
}

/// Loads an example task of the repository and makes a message for it.
fn example(runner: &ComponentRunner, name: &'static str, topic: &str, msg: &str) -> Case {
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tasks");
    let wasm = std::fs::read(tasks.join(format!("{name}.wasm")))
        .unwrap_or_else(|_| panic!("task `{name}` is not built; run `cargo tasks`"));
    let manifest = std::fs::read_to_string(tasks.join(format!("{name}.toml"))).unwrap();
    case(runner, name, &wasm, &manifest, topic, msg)
}

fn call(message: &Message) -> Call<'_> {
    Call {
        message,
        run_id: RunId::new("run"),
        attempt: 1,
        timeout: Duration::from_secs(3600),
        memory: 64 << 20,
        output: 64 << 10,
        state: Arc::new(|_| Box::pin(async { Ok(None) })),
    }
}

/// Measures a whole call as in the product: creates a store and an instance, calls the instance, and drops
/// everything.
fn fresh(criterion: &mut Criterion, runtime: &Runtime, runner: &ComponentRunner, case: &Case) {
    criterion.bench_function(&format!("fresh/{}", case.name), |bencher| {
        bencher.iter(|| {
            let attempt = runtime.block_on(runner.run(&case.component, call(&case.message)));
            assert!(attempt.outcome.is_success(), "{:?}", attempt.outcome);
            attempt
        });
    });
}

fn parts(criterion: &mut Criterion, runtime: &Runtime, runner: &ComponentRunner, case: &Case) {
    let (component, call) = (&case.component, call(&case.message));
    criterion.bench_function(&format!("store/{}", case.name), |bencher| {
        bencher.iter(|| bench_support::store(runner, component, &call));
    });
    criterion.bench_function(&format!("store+instantiate/{}", case.name), |bencher| {
        bencher
            .iter(|| drop(runtime.block_on(bench_support::instantiate(runner, component, &call))));
    });
    criterion.bench_function(&format!("reused/{}", case.name), |bencher| {
        let mut instance = runtime.block_on(bench_support::instantiate(runner, component, &call));
        bencher.iter(|| runtime.block_on(instance.handle()));
    });
}

/// Measures the native versions of the same functions.
fn native(criterion: &mut Criterion, push: &str) {
    criterion.bench_function("native/greet", |bencher| {
        bencher.iter(|| test::message(GREETING_TOPIC, black_box(GREETING)).run(greet));
    });
    criterion.bench_function("native/block-retired", |bencher| {
        bencher.iter(|| test::message(PUSH_TOPIC, black_box(push)).run(block_retired));
    });
}

fn load(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let [cold, warm] = [runner(1, None), runner(1, Some(&folder.path().join("cache")))];
    let source = |runner: &ComponentRunner| {
        example(runner, "greet", GREETING_TOPIC, GREETING).component.source
    };
    assert_eq!(source(&warm), Source::Compiled);
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    group.bench_function("compile/greet", |bencher| {
        bencher.iter(|| assert_eq!(source(&cold), Source::Compiled));
    });
    group.bench_function("cache/greet", |bencher| {
        bencher.iter(|| assert_eq!(source(&warm), Source::Cache));
    });
    group.finish();
}

/// Prints how much memory each live instance adds to the process after one message.
fn measure_memory(runtime: &Runtime, cases: &[Case]) {
    for case in cases {
        let runner = runner(LIVE, None);
        let message = &case.message;
        let component = match case.name {
            "minimal" => {
                let wat = include_str!("../tests/guests/guest.wat").replace("BODY", "i32.const 0");
                let wasm = wat::parse_str(wat).unwrap();
                runner.load(&wasm, &Manifest::default(), BTreeMap::new()).ok().unwrap()
            }
            name => example(&runner, name, "a", "{}").component,
        };
        let start = Instant::now();
        let before = resident();
        let live: Vec<_> = (0..LIVE)
            .map(|_| {
                runtime.block_on(async {
                    let mut instance =
                        bench_support::instantiate(&runner, &component, &call(message)).await;
                    instance.handle().await;
                    instance
                })
            })
            .collect();
        let each = resident().saturating_sub(before) / u64::from(LIVE);
        println!(
            "live/{}: {} KiB for each of {LIVE} instances ({:?})",
            case.name,
            each >> 10,
            start.elapsed()
        );
        drop(live);
    }
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
