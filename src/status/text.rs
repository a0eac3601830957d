//! Sentences within the bounds of the schema.
use jiff::Timestamp;

use crate::{api::Time, snapshot::on_one_line};

/// The text in one line that commands no terminal, cut to `chars_max` characters; the last one then is an ellipsis.
pub(super) fn clip(text: &str, chars_max: usize) -> String {
    let text = on_one_line(text);
    if text.chars().count() <= chars_max {
        return text.into_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// How long each of several texts may be, so that together they have at most `total` characters: what short ones do not need
/// is the long ones'.
pub(super) fn share(mut lengths: Vec<usize>, total: usize) -> usize {
    lengths.sort_unstable();
    let (mut left, mut sharers) = (total, lengths.len());
    for length in lengths {
        let share = left / sharers;
        if length > share {
            return share;
        }
        left -= length;
        sharers -= 1;
    }
    total
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
        assert_eq!(clip("a\nb", 3), "a b");
    }

    #[test]
    fn short_texts_leave_their_share_to_long_ones() {
        assert_eq!(share(vec![], 10), 10);
        assert_eq!(share(vec![3, 3, 3], 9), 9, "all fit");
        assert_eq!(share(vec![4, 4, 4], 9), 3);
        assert_eq!(share(vec![100, 1, 4], 15), 10);
        assert_eq!(share(vec![100, 1, 100], 15), 7);
    }
}
