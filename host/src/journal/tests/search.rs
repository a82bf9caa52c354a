//! Tests of the search for runs, and of the groups of failures.

use super::*;

/// Without an index, each part of a search would read and sort all runs.
#[test]
fn a_search_uses_the_index_of_its_rarest_term() {
    let connection = Connection::open_in_memory().unwrap();
    for step in tables::SCHEMA.steps {
        connection.execute_batch(step).unwrap();
    }
    for (text, expected) in [
        ("", "SCAN runs USING COVERING INDEX runs_by_time"),
        ("after:1h took:>1s", "INDEX runs_by_time (started_at_ms>?)"),
        ("-task:t", "SCAN runs USING INDEX runs_by_time"),
        ("task:t", "INDEX runs_of_task (task=?)"),
        ("task:t,u", "INDEX runs_of_task (task=?)"),
        ("outcome:exit", "INDEX runs_of_outcome (outcome_name=?)"),
        ("outcome:success", "INDEX runs_of_outcome (outcome_name=?)"),
        ("outcome:failure", "INDEX runs_of_outcome (outcome_name=?)"),
        ("task:t outcome:exit", "INDEX runs_of_outcome (outcome_name=?)"),
        ("task:t outcome:success", "INDEX runs_of_task (task=?)"),
        ("task:t after:1h", "INDEX runs_of_task (task=? AND started_at_ms>?)"),
        ("task:t outcome:exit message:m", "INDEX runs_of_message (message_id=?)"),
        ("run:r task:t", "INDEX sqlite_autoindex_runs_1 (id=?)"),
    ] {
        let search = Search::parse(text, jiff::Timestamp::now()).unwrap();
        for place in [None, Some("5-6".parse().unwrap())] {
            let plan = find::plan(&connection, &search, place);
            match place {
                None => assert!(plan.contains(expected), "{text}: {plan}"),
                // A later part begins in the middle of the index. A message and an id have few runs.
                Some(_) if text.contains("message") || text.contains("run:") => (),
                Some(_) => assert!(plan.contains("started_at_ms<?)"), "{text}: {plan}"),
            }
            assert!(!plan.contains("SCAN runs\n"), "{text}: {plan}");
            // Within an index, the runs are in the order of their time already. Only what was read is sorted again. A message
            // and an id have few runs.
            let lines: Vec<_> = plan.lines().collect();
            let is_sorted = lines
                .windows(2)
                .any(|pair| pair[0].contains(" runs USING") && pair[1].contains("TEMP B-TREE"));
            let is_rare = text.contains("message") || text.contains("run:");
            assert!(!is_sorted || is_rare, "{text}: {plan}");
        }
    }
}

#[tokio::test]
async fn a_search_finds_runs_by_each_qualifier() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    let exit = || Outcome::Exit { status: "exit status 2".into() };
    // Runs 1 and 2 start in the same millisecond.
    for (number, task, outcome) in
        [(0, "a", Outcome::Success), (1, "b", exit()), (2, "a", exit()), (3, "c", retry())]
    {
        let mut run = run(&format!("r-{number}"), &format!("m-{number}"), outcome);
        run.task = task.try_into().unwrap();
        run.started_at_ms = [1_000, 2_000, 2_000, 3_000][number];
        run.duration = Duration::from_secs(number as u64);
        run.attempt = number as u32 + 1;
        run.worker = number as u32;
        run.topic = ["a.b", "a.c.d", "x.b", "a.b"][number].try_into().unwrap();
        run.output.text = format!("Output {number}");
        run.kind = if number == 3 { TaskKind::Playbook } else { TaskKind::Component };
        let mut record_of = without_effects(run);
        record_of.message = serde_json::from_str(&format!(
            r#"{{"id":"m-{number}","topic":"a.b","body":{{"build":{{"name":"n{number}"}}}}}}"#
        ))
        .unwrap();
        record(&journal, record_of).await;
    }
    for (text, expected) in [
        ("", "3210"),
        ("task:a", "20"),
        ("task:a,c", "320"),
        ("-task:a", "31"),
        ("task:none", ""),
        ("outcome:exit", "21"),
        ("outcome:failure", "321"),
        ("outcome:success", "0"),
        ("outcome:success,exit", "210"),
        ("outcome:failure,exit,exit", "321"),
        ("task:a,a", "20"),
        ("outcome:failure task:a", "2"),
        ("-outcome:failure", "0"),
        ("topic:a.#", "310"),
        ("-topic:a.#", "2"),
        ("topic:*.b task:c", "3"),
        ("after:1970-01-01T00:00:02", "321"),
        ("before:1970-01-01T00:00:02", "0"),
        ("-before:1970-01-01T00:00:02 task:a", "2"),
        ("took:>1s", "32"),
        ("took:<=1s", "10"),
        ("took:2s", "2"),
        ("attempt:>2", "32"),
        ("worker:1", "1"),
        ("kind:playbook", "3"),
        ("message:m-1", "1"),
        ("run:r-2", "2"),
        ("run:r-2 task:b", ""),
        ("msg.build.name:n1", "1"),
        ("-msg.build.name:n1", "320"),
        ("\"OUTPUT 2\"", "2"),
        ("status", "21"),
        ("n3", "3"),
        ("-n3 -task:a", "1"),
    ] {
        for limit in [1, 2, 50] {
            let ids = found(&journal, text, limit).await;
            let expected: Vec<_> = expected.chars().map(|number| format!("r-{number}")).collect();
            assert_eq!(ids, expected, "{text}, {limit} at a time");
        }
    }
}

/// A search that has no time left ends after one run and goes on from there.
#[tokio::test]
async fn a_search_without_time_says_how_far_it_came() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    for number in 0..10 {
        let id = format!("r-{number}");
        record(&journal, without_effects(run(&id, &id, Outcome::Success))).await;
    }
    let search = Search::parse("run:none outcome:success", jiff::Timestamp::now()).unwrap();
    let found = journal.search(search, None, 5, Duration::ZERO).await.unwrap();
    assert!(found.runs.is_empty() && found.next.is_none());
    let search = Search::parse("-text:text", jiff::Timestamp::now()).unwrap();
    let (mut place, mut parts) = (None, 0);
    loop {
        let found = journal.search(search.clone(), place, 5, Duration::ZERO).await.unwrap();
        assert!(found.runs.is_empty());
        parts += 1;
        place = found.next;
        if place.is_none() {
            break;
        }
    }
    assert_eq!(parts, 11);
}

#[tokio::test]
async fn failed_runs_are_grouped_by_what_is_the_same_in_their_reasons() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    let exit = |status: &str| Outcome::Exit { status: status.into() };
    for (number, outcome) in [
        exit("build 12345 failed"),
        Outcome::Success,
        exit("build 67890 failed"),
        exit("no network"),
        Outcome::Cancelled,
    ]
    .into_iter()
    .enumerate()
    {
        let mut run = run(&format!("r-{number}"), &format!("m-{number}"), outcome);
        run.started_at_ms = 1000 * number as i64;
        record(&journal, without_effects(run)).await;
    }
    let time = Duration::from_secs(60);
    let failures = journal.failures(0, time).await.unwrap();
    let groups: Vec<_> = failures
        .groups
        .iter()
        .map(|group| {
            (group.reason.as_str(), group.count, group.first_ms, group.last_ms, group.last.as_str())
        })
        .collect();
    assert_eq!(
        groups,
        [("exit: no network", 1, 3000, 3000, "r-3"), ("exit: build … failed", 2, 0, 2000, "r-2"),]
    );
    assert!(!failures.is_partial);
    assert_eq!(failures.groups[1].sample, "exit: build 67890 failed");
    assert_eq!(journal.failures(3000, time).await.unwrap().groups.len(), 1);
    assert!(journal.failures(0, Duration::ZERO).await.unwrap().is_partial);
}

/// The windows of several indexes are merged, whatever the density of their runs.
#[tokio::test]
async fn a_search_of_several_tasks_skips_no_run() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    let mut records = Vec::new();
    for number in 0..1500 {
        let mut run = run(&format!("r-{number}"), &format!("m-{number}"), Outcome::Success);
        run.task = if number % 50 == 0 { "rare" } else { "often" }.try_into().unwrap();
        // Several runs start in the same millisecond.
        run.started_at_ms = number / 3;
        records.push(without_effects(run));
    }
    journal.record(Arc::new(records)).await.unwrap();
    for (text, count) in [("task:rare,often", 1500), ("task:rare", 30), ("took:<1s", 1500)] {
        for limit in [7, 50, 5000] {
            let ids = found(&journal, text, limit).await;
            let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
            assert_eq!((ids.len(), distinct.len()), (count, count), "{text}, {limit} at a time");
        }
    }
}
