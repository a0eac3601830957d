//! Sentences within the bounds of the schema.
use jiff::Timestamp;

use crate::{api::Time, api::bounds::RANGES_CHARS_MAX, snapshot::Ranges};

/// The text, cut to `chars_max` characters; the last one then is an ellipsis.
pub(super) fn clip(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// Ranges as text, cut after the last range that fits.
pub(super) fn ranges(numbers: impl IntoIterator<Item = i32>) -> String {
    let text = numbers.into_iter().collect::<Ranges>().to_string();
    if text.len() <= RANGES_CHARS_MAX {
        return text;
    }
    let end = text[..=RANGES_CHARS_MAX].rfind(',').unwrap_or(0);
    text[..end].to_owned()
}

/// `at` as the API stores it: whole seconds.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// `3 instances`, `1 instance`.
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_their_bounds() {
        assert_eq!(clip("ready", 5), "ready");
        assert_eq!(clip("→→→→", 3), "→→…");
        let odd = ranges((0..10_000).filter(|n| n % 2 == 1));
        assert!(odd.len() <= RANGES_CHARS_MAX && odd.starts_with("1,3,5") && !odd.ends_with(','), "{}", odd.len());
        assert_eq!(Ranges::parse(&odd).to_string(), odd, "no number is cut in two");
        assert_eq!(ranges([3, 1, 2]), "1-3");
    }
}
