//! Sets of instance numbers as text: `"0-2,7"`.
use std::{collections::BTreeSet, fmt};

/// A set of instance numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub BTreeSet<i32>);

impl Ranges {
    /// Reads `"3,5-7"`; what cannot be read is left out, numbers beyond 0 … 9,999 too.
    pub fn parse(text: &str) -> Self {
        Self(Self::intervals(text).into_iter().flat_map(|(first, last)| first..=last).collect())
    }

    /// The same as intervals (first, last), in order and apart: a few characters may name every number many times.
    pub fn intervals(text: &str) -> Vec<(i32, i32)> {
        let read = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse::<i32>().ok()?, last.trim().parse::<i32>().ok()?);
            let (first, last) = (first.max(0), last.min(crate::api::bounds::REPLICAS_MAX - 1));
            (first <= last).then_some((first, last))
        };
        let mut found: Vec<(i32, i32)> = text.split(',').filter_map(read).collect();
        found.sort_unstable();
        found.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1 + 1;
            kept.1 = if touches { kept.1.max(next.1) } else { kept.1 };
            touches
        });
        found
    }

    /// As text of at most `chars_max` characters: what does not fit is left out, the highest numbers first.
    pub fn within(&self, chars_max: usize) -> String {
        let mut text = self.to_string();
        if text.len() > chars_max {
            let end = text[..=chars_max].rfind(',').unwrap_or(0);
            text.truncate(end);
        }
        text
    }

    /// As text of at most `chars_max` characters that leaves none out: where they do not fit, those between them come in, where
    /// there are the fewest first.
    pub fn covering(&self, chars_max: usize) -> String {
        let mut covering = self.clone();
        for gap in 2..crate::api::bounds::REPLICAS_MAX {
            if covering.to_string().len() <= chars_max {
                break;
            }
            let numbers: Vec<i32> = covering.0.iter().copied().collect();
            let narrow = numbers.windows(2).filter(|pair| pair[1] - pair[0] == gap);
            covering.0.extend(narrow.flat_map(|pair| pair[0]..pair[1]));
        }
        covering.to_string()
    }

    /// True when no number is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<i32> for Ranges {
    fn from_iter<I: IntoIterator<Item = i32>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.iter().copied().peekable();
        let mut first_range = true;
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if(|next| *next == last + 1) {
                last = next;
            }
            if !first_range {
                f.write_str(",")?;
            }
            first_range = false;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_set_agree() {
        let set: Ranges = [0, 1, 2, 7, 9, 10].into_iter().collect();
        assert_eq!(set.to_string(), "0-2,7,9-10");
        assert_eq!(Ranges::parse("0-2,7, 9-10"), set);
        assert_eq!(["0-2,7,9-10", "0-2,7", "0-2,7", "0-2", ""], [10, 9, 5, 4, 2].map(|chars| set.within(chars)));
        assert_eq!(["0-2,7,9-10", "0-2,7-10", "0-10"], [10, 9, 7].map(|chars| set.covering(chars)));
        assert_eq!(Ranges::parse("x,5-3,-4"), Ranges::default());
        assert_eq!(Ranges::parse("9990-999999").0.len(), 10);
        assert_eq!(Ranges::intervals("7,0-9999,3-5,0-9999"), [(0, 9_999)]);
        assert_eq!(Ranges::intervals("8,1-3,4,6"), [(1, 4), (6, 6), (8, 8)]);
    }
}
