//! Times as the API server passes them on: Go writes later ones than can be held here, such as 9999-12-31T23:59:59Z, a usual
//! word for never. They count as [`LATEST`].
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde::{Deserialize, Deserializer, de::Error};

/// 9900-01-01T00:00:00Z. Later times count as this: what is reckoned with it stays within what can be held.
pub const LATEST: Timestamp = Timestamp::constant(250_246_627_200, 0);

/// A time. None for a text that is none.
pub fn parse(text: &str) -> Option<Timestamp> {
    match text.parse::<Timestamp>() {
        Ok(time) => Some(time.min(LATEST)),
        Err(_) => is_beyond(text).then_some(LATEST),
    }
}

/// A year of 9999 or later, and a rest that looks like one of a time.
fn is_beyond(text: &str) -> bool {
    let Some((year, rest)) = text.split_once('-') else { return false };
    let is_late = year.len() > 4 || year == "9999";
    is_late
        && year.len() < 12
        && year.bytes().all(|byte| byte.is_ascii_digit())
        && (11..40).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_digit() || b"-:.+TZtz".contains(&byte))
}

fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let wrong = |text: &str| D::Error::custom(format!("{:?} is no time", text.chars().take(40).collect::<String>()));
    text.map(|text| parse(&text).ok_or_else(|| wrong(&text))).transpose()
}

/// For `deserialize_with`.
pub fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    Ok(read(from)?.map(Time))
}

/// The same with microseconds.
pub fn micro_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MicroTime>, D::Error> {
    Ok(read(from)?.map(MicroTime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_held_is_the_latest() {
        assert_eq!(LATEST.to_string(), "9900-01-01T00:00:00Z");
        let late = [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.000000Z",
            "9999-12-31T23:59:59-01:00",
            "10000-01-01T00:59:59Z",
        ];
        for text in late.into_iter().chain(["9999-01-01T00:00:00Z", "9999-12-30T21:59:59.999999999Z"]) {
            assert_eq!(parse(text), Some(LATEST), "{text}");
        }
        assert_eq!(parse("2026-01-01T10:00:00.5Z").unwrap().to_string(), "2026-01-01T10:00:00.5Z");
        assert!(parse("0001-01-01T00:00:00Z").is_some(), "Go's zero");
        for text in [
            "",
            "never",
            "9999-",
            "9999-12-31",
            "2026-13-01T10:00:00Z",
            "99999999999999-01-01T00:00:00Z",
            "-9999-12-31T23:59:59Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
