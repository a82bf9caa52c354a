//! Random texts for the property tests: valid messages, almost valid messages, and texts that are not JSON.

use proptest::prelude::*;

/// Returns texts that are JSON values in most cases. Some are long or nested to the limit.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        200 => prop::sample::select(vec![
            "null", "true", "0", "-0", "1.50", "1e5", "1E400", "-7", "12345678901234567890123", "[]", "{}",
            "NaN", "01", "\"\"", "\"a.b\"", "\"a b\"", "\"$5\"", "\"\\u0024x\"", "\"\\ud83d\\ude00\"", "\"é\"",
            "\"\\ud800\"", "\"$serde_json::private::Number\"", "\"1\"", "1504642719.23539", "\"\\/\"", "", "\"",
        ]).prop_map(str::to_owned),
        4 => prop_oneof![Just(4300), Just(4301)].prop_map(|length: usize| "1".repeat(length)),
        6 => (120_usize..130).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        6 => (120_usize..130).prop_map(|depth| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth)),
        1 => Just(format!("\"{}\"", "x".repeat(66_000))),
        1 => Just(format!("[{}0]", "0,".repeat(200_000))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(" , "))),
            object(
                prop::sample::select(vec!["a", "b", "\\u0061", "topic", "msg", "msg_id"]),
                inner,
                0..4
            ),
        ]
    })
}

fn object(
    key: impl Strategy<Value = &'static str>,
    value: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", "", "", " ", "\n"]);
    let member = (key, value, space)
        .prop_map(|(key, value, space)| format!("{space}\"{key}\"{space}:{space}{value}{space}"));
    prop::collection::vec(member, count).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Returns texts of which some are valid payloads.
pub(super) fn json_text() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec!["a", "b", "topic", "\\u0061", "$", "é"]);
    prop_oneof![
        4 => object(keys, value(), 0..5),
        1 => value(),
        1 => "[\\[\\]{}\",:\\\\u0-9a-f.eE+ -]{0,40}",
    ]
    .prop_flat_map(|text| {
        prop::sample::select(vec!["", " ", "\n", "x"])
            .prop_map(move |space| format!("{space}{text}{space}"))
    })
}

/// Returns texts of which some are valid recordings.
pub(super) fn recording() -> impl Strategy<Value = String> {
    // Most keys have a value of the right type, so that many recordings are accepted.
    let text = |text: &str| Just(text.to_owned());
    let member = prop_oneof![
        6 => prop_oneof![9 => text("\"topic\":\"a.b\""), 1 => value().prop_map(|v| format!("\"topic\":{v}"))],
        4 => value().prop_map(|v| format!("\"msg\":{v}")),
        4 => value().prop_map(|v| format!("\"body\":{v}")),
        2 => prop_oneof![4 => text("\"id\":\"1\""), 1 => text("\"id\":null"), 1 => value().prop_map(|v| format!("\"id\":{v}"))],
        3 => prop_oneof![4 => text("\"msg_id\":\"1\""), 1 => value().prop_map(|v| format!("\"msg_id\":{v}"))],
        2 => prop_oneof![3 => text("\"timestamp\":1.5"), 1 => value().prop_map(|v| format!("\"timestamp\":{v}"))],
        2 => prop_oneof![
            2 => text("\"headers\":{}"),
            2 => object(prop::sample::select(vec!["a", "b"]), value(), 0..3).prop_map(|v| format!("\"headers\":{v}")),
            1 => value().prop_map(|v| format!("\"headers\":{v}")),
        ],
        2 => text("\"source_name\":\"datanommer\""),
        2 => text("\"source_version\":\"0.6\""),
        1 => text("\"i\": 3"),
        1 => prop::sample::select(vec!["crypto", "signature", "certificate", "m\\u0073g", "more"])
            .prop_flat_map(|key| value().prop_map(move |v| format!("\"{key}\":{v}"))),
    ];
    let members = prop::collection::vec(member, 1..7).prop_map(|m| format!("{{{}}}", m.join(", ")));
    prop_oneof![9 => members, 1 => json_text()]
}
