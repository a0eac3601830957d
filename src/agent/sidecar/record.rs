//! What outlives the agent, as the application goes on, in files: the last deadline that it was told, and the number of the last
//! stream that it has opened.
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{api::session::SessionProfile, plan::listener_set::session::Boottime, sdk::wire::INSTANCE_BYTES_MAX};

const FILE: &str = "application.deadline";
const STREAM_FILE: &str = "application.stream";
/// Digits of the largest number of nanoseconds.
const DIGITS: usize = 20;

/// The files.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    file: File,
    written: Boottime,
    is_new: bool,
}

impl Record {
    /// Opens the file; also tells until when what an earlier agent has begun may run, if there was one.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path, now: Boottime) -> io::Result<(Self, Option<Boottime>)> {
        let path = folder.join(FILE);
        let is_new = !path.try_exists()?;
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut text = String::new();
        // No longer than that: the rest is not ours.
        let read = Read::by_ref(&mut file).take(DIGITS as u64 + 1).read_to_string(&mut text);
        let earlier = match (read, text.parse()) {
            (Ok(0), _) => None,
            // No agent says more than the longest deadline at once. One that is later is from before the machine was
            // started again, when this clock began anew.
            (Ok(_), Ok(nanos)) => Some(Boottime::from_nanos(nanos).min(longest(now))),
            _ => Some(longest(now)),
        };
        Ok((Self { folder: folder.to_owned(), file, written: Boottime::default(), is_new }, earlier))
    }

    /// No agent has used this folder before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The instance that has opened the last stream, and its number.
    pub fn last_stream(&self) -> Option<(String, u64)> {
        let mut text = String::new();
        let file = File::open(self.folder.join(STREAM_FILE)).ok()?;
        file.take((DIGITS + 1 + INSTANCE_BYTES_MAX) as u64).read_to_string(&mut text).ok()?;
        let (number, instance) = text.split_once(' ')?;
        Some((instance.to_owned(), number.parse().ok()?))
    }

    /// Writes down that this instance has opened the stream of this number. To be called before it is told so: the next agent
    /// must not take the same request for a new one.
    ///
    /// # Errors
    /// It could not be written: the stream must not begin.
    pub fn opened(&mut self, instance: &str, number: u64) -> io::Result<()> {
        let path = self.folder.join(STREAM_FILE);
        let new = path.with_extension("stream-new");
        fs::write(&new, format!("{number} {instance}"))?;
        fs::rename(new, path)
    }

    /// Writes down that the application may be told this deadline. To be called before it is.
    ///
    /// # Errors
    /// It could not be written: the application must not be told.
    pub fn write(&mut self, until: Boottime) -> io::Result<()> {
        if until > self.written {
            // In one piece, so that a reader finds this one or the one before.
            self.file.write_all_at(format!("{:0DIGITS$}", until.as_nanos()).as_bytes(), 0)?;
            self.written = until;
        }
        Ok(())
    }
}

/// The latest deadline that an agent which ran until now can have told.
pub fn longest(now: Boottime) -> Boottime {
    let profiles = [SessionProfile::Calm, SessionProfile::Default, SessionProfile::Fast];
    let longest = profiles.into_iter().map(|profile| profile.times().kill).max();
    now.after(longest.unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Boottime {
        Boottime(Duration::from_secs(second))
    }

    #[test]
    fn the_last_deadline_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, earlier) = Record::open(folder.path(), second(100)).unwrap();
        assert_eq!((earlier, record.is_new()), (None, true), "there was no agent before");
        record.write(second(111)).unwrap();
        record.write(second(114)).unwrap();
        record.write(second(112)).unwrap();
        let (record, earlier) = Record::open(folder.path(), second(105)).unwrap();
        assert_eq!(earlier, Some(second(114)), "nothing takes back what was told");
        assert!(!record.is_new());
    }

    #[test]
    fn the_last_stream_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Record::open(folder.path(), second(100)).unwrap().0;
        assert_eq!(open().last_stream(), None);
        open().opened("i", u64::MAX).unwrap();
        assert_eq!(open().last_stream(), Some(("i".to_owned(), u64::MAX)));
        let long = "i".repeat(INSTANCE_BYTES_MAX);
        open().opened(&long, 7).unwrap();
        assert_eq!(open().last_stream(), Some((long, 7)));
        std::fs::write(folder.path().join(STREAM_FILE), "x").unwrap();
        assert_eq!(open().last_stream(), None);
    }

    #[test]
    fn no_deadline_is_later_than_an_agent_can_have_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, _) = Record::open(folder.path(), second(0)).unwrap();
        record.write(second(1 << 30)).unwrap();
        assert_eq!(
            Record::open(folder.path(), second(100)).unwrap().1,
            Some(second(162)),
            "the machine was started again"
        );
        for garbage in ["x", "123456789012345678901234567890"] {
            std::fs::write(folder.path().join(FILE), garbage).unwrap();
            assert_eq!(Record::open(folder.path(), second(100)).unwrap().1, Some(second(162)), "{garbage}");
        }
        assert!(Record::open(&folder.path().join("missing"), second(100)).is_err());
    }
}
