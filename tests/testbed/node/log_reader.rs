//! Reading a container's log back, for `kubectl logs`.
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;
use serde::Deserialize;

/// How often a log is looked at that somebody follows.
const POLL: Duration = Duration::from_millis(100);

/// What is wanted of a log, as the kubelet API names it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wanted {
    pub follow: bool,
    pub previous: bool,
    pub tail_lines: Option<usize>,
    pub since_seconds: Option<i64>,
    pub since_time: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<usize>,
    /// `All`, `Stdout` or `Stderr`.
    pub stream: Option<String>,
}

/// One start's log.
pub struct LogReader {
    pub path: PathBuf,
    pub wanted: Wanted,
}

impl LogReader {
    /// Hands every piece of the log to `take` until that says no. Blocks.
    /// `ended`: nothing will be added any more.
    pub fn read(&self, ended: impl Fn() -> bool, mut take: impl FnMut(Vec<u8>) -> bool) -> Result<()> {
        let mut file = BufReader::new(File::open(&self.path)?);
        let mut line = Vec::new();
        let mut first = Vec::new();
        while read_line(&mut file, &mut line)? {
            first.extend(self.shown(&line));
            line.clear();
        }
        let skipped = self.wanted.tail_lines.map_or(0, |tail| lines_before_tail(&first, tail));
        let mut budget = self.wanted.limit_bytes.unwrap_or(usize::MAX);
        let mut give = |mut bytes: Vec<u8>| {
            bytes.truncate(budget);
            budget -= bytes.len();
            (bytes.is_empty() || take(bytes)) && budget > 0
        };
        let mut wanted = first.into_iter().skip(skipped).all(&mut give);
        while wanted && self.wanted.follow {
            // Asked before the look, or the last lines would be missed.
            let over = ended();
            let mut quiet = true;
            while wanted && read_line(&mut file, &mut line)? {
                quiet = false;
                wanted = self.shown(&line).is_none_or(&mut give);
                line.clear();
            }
            if quiet && line.is_empty() && self.replaced(&file) {
                file = BufReader::new(File::open(&self.path)?);
            } else if quiet && over {
                break;
            } else if quiet {
                wanted = wanted && give(Vec::new());
                sleep(POLL);
            }
        }
        Ok(())
    }

    /// A log that had grown too long has been moved away.
    fn replaced(&self, file: &BufReader<File>) -> bool {
        let now = std::fs::metadata(&self.path);
        now.is_ok_and(|now| file.get_ref().metadata().is_ok_and(|then| then.ino() != now.ino()))
    }

    /// What is to be seen of `TIME STREAM TAG TEXT\n`.
    fn shown(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = tag == b"F";
        let chosen = match self.wanted.stream.as_deref() {
            Some("Stdout") => stream == b"stdout",
            Some("Stderr") => stream == b"stderr",
            _ => true,
        };
        if !chosen || !self.recent(time) {
            return None;
        }
        let mut shown = Vec::new();
        if self.wanted.timestamps {
            shown.extend(time);
            shown.push(b' ');
        }
        shown.extend(if whole { text } else { text.strip_suffix(b"\n").unwrap_or(text) });
        Some(shown)
    }

    fn recent(&self, time: &[u8]) -> bool {
        let since = match (self.wanted.since_time, self.wanted.since_seconds) {
            (Some(time), _) => time,
            (None, Some(seconds)) => Timestamp::now() - jiff::SignedDuration::from_secs(seconds),
            (None, None) => return true,
        };
        std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok()).is_none_or(|time| time >= since)
    }
}

/// Adds the rest of a line; says whether it is complete.
fn read_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> Result<bool> {
    file.read_until(b'\n', line)?;
    Ok(line.last() == Some(&b'\n'))
}

/// How many pieces come before the last `tail` lines. A piece without line feed goes on in the next.
fn lines_before_tail(pieces: &[Vec<u8>], tail: usize) -> usize {
    let mut left = tail;
    for (index, _) in pieces.iter().enumerate().rev() {
        let starts_line = index == 0 || pieces[index - 1].last() == Some(&b'\n');
        if left == 0 {
            return index + 1;
        }
        if starts_line {
            left -= 1;
        }
    }
    if tail == 0 { pieces.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-21T12:00:01.000000001Z stdout F one
2026-11-21T12:00:02.000000001Z stderr F two
2026-11-21T12:00:03.000000001Z stdout P thr
2026-11-21T12:00:04.000000001Z stdout F ee
2026-11-21T12:00:05.000000001Z stdout F 
";

    fn read(wanted: Wanted) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let mut out = Vec::new();
        let reader = LogReader { path, wanted };
        reader
            .read(
                || true,
                |bytes| {
                    out.extend(bytes);
                    true
                },
            )
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_log_is_shown_as_it_was_written() {
        assert_eq!(read(Wanted::default()), "one\ntwo\nthree\n\n");
        assert_eq!(read(Wanted { follow: true, ..Wanted::default() }), "one\ntwo\nthree\n\n");
    }

    #[test]
    fn parts_of_it_can_be_asked_for() {
        let tail = |lines| read(Wanted { tail_lines: Some(lines), ..Wanted::default() });
        assert_eq!(tail(2), "three\n\n");
        assert_eq!(tail(3), "two\nthree\n\n");
        assert_eq!(tail(0), "");
        assert_eq!(tail(9), "one\ntwo\nthree\n\n");
        assert_eq!(read(Wanted { limit_bytes: Some(6), ..Wanted::default() }), "one\ntw");
        assert_eq!(read(Wanted { stream: Some("Stderr".into()), ..Wanted::default() }), "two\n");
        let since: Timestamp = "2026-11-21T12:00:04Z".parse().unwrap();
        assert_eq!(read(Wanted { since_time: Some(since), ..Wanted::default() }), "ee\n\n");
        let stamped = read(Wanted { timestamps: true, tail_lines: Some(1), ..Wanted::default() });
        assert_eq!(stamped, "2026-11-21T12:00:05.000000001Z \n");
    }
}
