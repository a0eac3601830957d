//! What a child writes to its file descriptor 3: JSON objects, one a line.
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sdk::wire::{RESUME_BYTES_MAX, presentable};

/// Longest line: a resume value and the object around it.
pub const LINE_BYTES_MAX: usize = RESUME_BYTES_MAX + 256;

/// One thing that a child said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `{"resume": …}`: where a successor goes on; JSON as the child wrote it. The last one counts.
    Resume(String),
    /// `{"tick": true}`: it works.
    Tick,
    /// `{"prepared": true}`: it could start at once.
    Prepared,
    /// `{"failed": "why"}`; control characters are replaced, and what is too long is cut.
    Failed(String),
    /// Something else. It is skipped: a mistake in one line says nothing about the others.
    Refused(Refusal),
}

/// Why a line was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Longer than [`LINE_BYTES_MAX`], or its resume value than [`RESUME_BYTES_MAX`].
    TooLong,
    /// Not a JSON object with values of the expected kinds.
    Malformed,
    /// None of the known keys.
    Unknown,
}

/// Cuts what is read into lines.
#[derive(Debug, Default)]
pub struct Lines {
    unfinished: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    /// What these bytes complete.
    pub fn read(&mut self, mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            bytes = &bytes[end + 1..];
            lines.extend(self.finish());
        }
        self.keep(bytes);
        lines
    }

    /// What was last written counts without an end of line too.
    pub fn finish(&mut self) -> Vec<Line> {
        let line = std::mem::take(&mut self.unfinished);
        if std::mem::take(&mut self.is_too_long) {
            return vec![Line::Refused(Refusal::TooLong)];
        }
        parse(&line)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.is_too_long || self.unfinished.len() + bytes.len() > LINE_BYTES_MAX {
            self.is_too_long = true;
            self.unfinished.clear();
        } else {
            self.unfinished.extend_from_slice(bytes);
        }
    }
}

#[derive(Deserialize)]
struct Said<'a> {
    // Not just `default`: null is a resume value too.
    #[serde(borrow, default, deserialize_with = "present")]
    resume: Option<&'a RawValue>,
    tick: Option<bool>,
    prepared: Option<bool>,
    failed: Option<String>,
}

fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

fn parse(line: &[u8]) -> Vec<Line> {
    if line.trim_ascii().is_empty() {
        return Vec::new();
    }
    let Ok(said) = serde_json::from_slice::<Said<'_>>(line) else { return vec![Line::Refused(Refusal::Malformed)] };
    let resume = said.resume.map(|resume| match resume.get() {
        json if json.len() > RESUME_BYTES_MAX => Line::Refused(Refusal::TooLong),
        json => Line::Resume(json.to_owned()),
    });
    let tick = said.tick.and_then(|tick| tick.then_some(Line::Tick));
    let prepared = said.prepared.and_then(|prepared| prepared.then_some(Line::Prepared));
    let failed = said.failed.map(|why| Line::Failed(presentable(&why)));
    let is_known = resume.is_some() || said.tick.is_some() || said.prepared.is_some() || failed.is_some();
    let unknown = (!is_known).then_some(Line::Refused(Refusal::Unknown));
    [resume, tick, prepared, failed, unknown].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sdk::wire::REASON_BYTES_MAX;

    fn said(text: &str) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut found = lines.read(text.as_bytes());
        found.extend(lines.finish());
        found
    }

    fn resume(json: &str) -> Line {
        Line::Resume(json.into())
    }

    #[test]
    fn everything_known_is_told() {
        let text = "{\"resume\": {\"seq\": 123456789012345678901}}\n{\"tick\": true}\n\n{\"prepared\":true}\n{\"failed\": \"no route\"}\n";
        let expected =
            [resume("{\"seq\": 123456789012345678901}"), Line::Tick, Line::Prepared, Line::Failed("no route".into())];
        assert_eq!(said(text), expected, "no digit of a number is lost");
    }

    #[test]
    fn resume_may_be_any_json() {
        for json in ["null", "0", "\"\"", "[1, 2]", "{}"] {
            assert_eq!(said(&format!("{{\"resume\":{json}}}\n")), [resume(json)]);
        }
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(said("{\"resume\":1}\n{\"resume\":2}"), [resume("1"), resume("2")]);
    }

    #[test]
    fn what_is_wrong_is_told_and_skipped() {
        let refused = Line::Refused;
        for (text, why) in [
            ("hello", Refusal::Malformed),
            ("[1]", Refusal::Malformed),
            ("{\"tick\": 3}", Refusal::Malformed),
            ("{\"resume\": 1} {}", Refusal::Malformed),
            ("\u{1}\u{fffd}", Refusal::Malformed),
            ("{\"other\": 1}", Refusal::Unknown),
            ("{}", Refusal::Unknown),
        ] {
            assert_eq!(said(&format!("{text}\n{{\"tick\":true}}\n")), [refused(why), Line::Tick], "{text}");
        }
        assert_eq!(Lines::default().read(b"\xff\xfe\n"), [refused(Refusal::Malformed)]);
    }

    #[test]
    fn lengths_are_bounded() {
        let fits = format!("\"{}\"", "a".repeat(RESUME_BYTES_MAX - 2));
        assert_eq!(said(&format!("{{\"resume\":{fits}}}\n")), [resume(&fits)]);
        let too_long = format!("\"{}\"", "a".repeat(RESUME_BYTES_MAX - 1));
        let refused = || Line::Refused(Refusal::TooLong);
        assert_eq!(said(&format!("{{\"resume\":{too_long}}}\n")), [refused()]);
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert_eq!(lines.read(&[b'a'; 1000]), []);
            assert!(lines.unfinished.len() <= LINE_BYTES_MAX);
        }
        assert_eq!(lines.read(b"\n{\"tick\":true}\n"), [refused(), Line::Tick]);
    }

    #[test]
    fn failures_are_fit_for_a_log() {
        let text = format!("{{\"failed\":\"a\\u001b[2J\\n{}\"}}", "é".repeat(2000));
        let [Line::Failed(why)] = &said(&text)[..] else { panic!("{text}") };
        assert!(why.starts_with("a [2J é") && why.len() <= REASON_BYTES_MAX, "{why}");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_lines_are_cut(
            text in "(\\{\"resume\":[0-9]{1,3}\\}|\\{\"tick\":true\\}|[a-z ]{0,9}|\n){0,20}",
            cuts in prop::collection::vec(0_usize..300, 0..6),
        ) {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            for cut in cuts.windows(2) {
                found.extend(lines.read(&text.as_bytes()[cut[0]..cut[1]]));
            }
            found.extend(lines.finish());
            prop_assert_eq!(found, said(&text));
        }
    }
}
