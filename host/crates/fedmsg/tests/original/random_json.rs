//! Random JSON texts, some of them unusual or invalid.

use fastrand::Rng;

/// Returns a text that is JSON in most cases.
pub(crate) fn json_text(random: &mut Rng) -> String {
    let mut text = value(random, 4);
    if random.u8(..3) == 0 && !text.is_empty() {
        // Removes, doubles or replaces one character.
        let mut characters: Vec<char> = text.chars().collect();
        let at = random.usize(..characters.len());
        match random.u8(..3) {
            0 => drop(characters.remove(at)),
            1 => characters.insert(at, characters[at]),
            _ => characters[at] = *random.choice(b"{}[]\",:\\u0e.-+ NIa\n\x01").unwrap() as char,
        }
        text = characters.into_iter().collect();
    }
    text
}

/// Returns a JSON value of at most this depth.
pub(crate) fn value(random: &mut Rng, depth: u8) -> String {
    let space = |random: &mut Rng| [" ", "", "", "", "\n", "\t", "\r "][random.usize(..7)];
    let before = space(random);
    let after = space(random);
    let inner = match random.u8(..if depth == 0 { 8 } else { 12 }) {
        0 => ["null", "true", "false"][random.usize(..3)].to_owned(),
        1 if random.u8(..4) == 0 => ["NaN", "Infinity", "-Infinity"][random.usize(..3)].to_owned(),
        1..=4 => number(random),
        5..=7 => string(random),
        8 | 9 => {
            let values: Vec<_> = (0..random.usize(..4)).map(|_| value(random, depth - 1)).collect();
            format!("[{}{}]", values.join(","), space(random))
        }
        _ => {
            let members: Vec<_> = (0..random.usize(..5))
                .map(|_| {
                    format!(
                        "{}{}{}:{}",
                        space(random),
                        key(random),
                        space(random),
                        value(random, depth - 1)
                    )
                })
                .collect();
            format!("{{{}{}}}", members.join(","), space(random))
        }
    };
    format!("{before}{inner}{after}")
}

/// Returns a key. Half of the keys are chosen from a short list, so that keys are repeated.
fn key(random: &mut Rng) -> String {
    let few = [
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\"signature\"",
        "\"Z\"",
        "\"é\"",
        "\"\\ud800\"",
        "\"\u{ffff}\"",
        "\"😀\"",
    ];
    if random.bool() { few[random.usize(..few.len())].to_owned() } else { string(random) }
}

fn number(random: &mut Rng) -> String {
    let sign = ["", "", "-"][random.usize(..3)];
    let digits = |random: &mut Rng, most: usize| {
        (0..random.usize(1..=most)).map(|_| random.digit(10)).collect::<String>()
    };
    let whole = match random.u8(..8) {
        0 => "0".to_owned(),
        1 => random.u64(..).to_string(),
        2 => format!("{}{}", random.u8(1..10), digits(random, 60)),
        // The digits may start with a zero. Then the text is not a JSON number.
        3 => digits(random, 3),
        _ => random.u32(..100_000).to_string(),
    };
    let fraction = match random.u8(..3) {
        0 => format!(".{}", digits(random, 20)),
        _ => String::new(),
    };
    let exponent = match random.u8(..4) {
        0 => format!(
            "{}{}{}",
            ["e", "E"][random.usize(..2)],
            ["", "+", "-"][random.usize(..3)],
            random.u16(..330)
        ),
        _ => String::new(),
    };
    format!("{sign}{whole}{fraction}{exponent}")
}

fn string(random: &mut Rng) -> String {
    let mut text = String::from("\"");
    for _ in 0..random.usize(..8) {
        match random.u8(..9) {
            0 => text.push(random.char(..)),
            1 => text.push_str(
                ["\\n", "\\t", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\r"][random.usize(..8)],
            ),
            2 => text.push_str(&format!("\\u{:04x}", random.u16(..))),
            3 => text.push_str(&format!("\\u{:04X}", random.u16(..0x80))),
            4 => text.push_str(&format!(
                "\\u{:04x}\\u{:04X}",
                random.u16(0xd7f0..0xdc10),
                random.u16(0xdbf0..0xe010)
            )),
            _ => text.push(random.char(' '..'\u{90}')),
        }
    }
    // A bare quote would end the JSON string, so it becomes an apostrophe. Escaped quotes stay.
    let inner = text[1..].replace("\"", "'").replace("\\'", "\\\"");
    format!("\"{inner}\"")
}
