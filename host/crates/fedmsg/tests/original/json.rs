//! Our canonical JSON, compared with Python's for fixed and random texts.

use fastrand::Rng;
use loopabull_fedmsg::{Credentials, canonical_json};
use serde_json::json;

use crate::fixture::{Original, original};
use crate::random::seed;
use crate::random_json::json_text;

/// The number of texts in one question to the Python fedmsg.
const BATCH: usize = 500;

fn check(original: &Original, texts: &[String]) -> usize {
    let theirs = original.ask(json!({"do": "canonical", "texts": texts}));
    let mut taken = 0;
    for (text, theirs) in texts.iter().zip(theirs.as_array().unwrap()) {
        let ours = canonical_json(text, Credentials::Kept).ok();
        assert_eq!(ours.as_deref(), theirs.as_str(), "{text:?}");
        taken += usize::from(ours.is_some());
    }
    taken
}

fn check_all(texts: &[&str]) {
    check(&original(), &texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
}

#[test]
fn random_texts_have_the_same_canonical_form_in_python_or_are_refused_by_both() {
    let original = original();
    let mut random = Rng::with_seed(seed("json"));
    let (mut all, mut taken) = (0, 0);
    for _ in 0..40 {
        let texts: Vec<_> = (0..BATCH).map(|_| json_text(&mut random)).collect();
        all += texts.len();
        taken += check(&original, &texts);
    }
    println!("{taken} of {all} texts are JSON");
    assert!(taken > all / 4 && taken < all * 9 / 10, "{taken} of {all} texts are JSON");
}

#[test]
fn random_floats_are_written_as_python_writes_them() {
    let original = original();
    let mut random = Rng::with_seed(seed("floats"));
    for _ in 0..40 {
        let texts: Vec<_> = (0..BATCH).map(|_| float(&mut random)).collect();
        assert_eq!(check(&original, &texts), BATCH);
    }
}

/// Returns a float with random bits, with few digits, or near the limits of Python's notation without
/// exponent.
fn float(random: &mut Rng) -> String {
    match random.u8(0..4) {
        0 => match f64::from_bits(random.u64(..)) {
            float if float.is_finite() => format!("{float:e}"),
            _ => "1e999".to_owned(),
        },
        1 => format!("{}.{}e{}", random.u32(..1000), random.u32(..), random.i32(-330..330)),
        2 => format!(
            "{}{:.*}",
            if random.bool() { "-" } else { "" },
            random.usize(1..20),
            random.f64()
        ),
        _ => format!("{}e{}", random.u64(..), random.i32(-26..4)),
    }
}

#[test]
fn each_rule_of_python_is_followed() {
    check_all(&[
        "{\"\u{1f600}\":1,\"\u{ffff}\":2,\"é\":3,\"z\":4,\"Z\":5}",
        r#"{"\ue000":1,"\ud800":2,"\udfff":3}"#,
        r#""\ud83d\ude00 \ud83d \ude00 \ud83d\ud83d\ude00 \u007f \/ \u0000""#,
        "\"\u{7f}\u{80}\u{2028}\u{10ffff}\"",
        "[0,-0,-0.0,1.0,1e5,1e15,1e16,1e22,0.0001,1e-5,100000000000000000000.0,1504642719.23539]",
        "[NaN,Infinity,-Infinity,1E400,-1E400,5e-324,1.7976931348623157e308]",
        r#"{"a":1,"a":{"b":1,"b":2}}"#,
        "\u{feff}{}",
        "[1,]",
        "\"\u{1}\"",
        "01",
        "+1",
        ".5",
        "1.",
        "-",
        "-NaN",
        "nan",
        "{1:1}",
        "'a'",
        "",
        "[1,2] x",
        r#""\x""#,
        r#""\ud83d\u12""#,
        "{\"a\":1,}",
        "[",
        "\"",
        "tru",
        "1e",
        "1e+",
        "--1",
        " \t\n\r[ ]\n",
        "\u{a0}[]",
        "\u{b}[]",
    ]);
    let digits = |count: usize| "7".repeat(count);
    check_all(&[
        &digits(4300),
        &digits(4301),
        &format!("-{}", digits(4300)),
        &format!("[{}.0]", digits(5000)),
    ]);
}
