//! What may go wrong with a package.
use std::{error::Error, fmt::Display};

/// Bytes of a path in messages.
const PATH_BYTES_MAX: usize = 200;

/// Why there is no package: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Of the package, or of what is said about it: another try would meet the same.
    Rejected(String),
    /// Of its server, or of the way there: it is tried again.
    Unavailable(String),
    /// Of this machine.
    Local(String),
}

pub fn rejected(why: impl Into<String>) -> Problem {
    Problem::Rejected(why.into())
}

/// What went wrong here, with what was tried.
pub fn local<E: Display>(what: &str) -> impl Fn(E) -> Problem {
    move |error| Problem::Local(format!("{what}: {error}"))
}

/// An archive that cannot be read on.
pub fn damaged(error: impl Display) -> Problem {
    rejected(format!("the archive is damaged: {}", clipped(&printable(&error.to_string()), PATH_BYTES_MAX)))
}

/// What is wrong with an entry of an archive.
pub fn refused(path: &[u8], why: &str) -> Problem {
    let path = clipped(&String::from_utf8_lossy(path), PATH_BYTES_MAX);
    rejected(format!("the archive is refused: {path:?} {why}"))
}

/// The author of the archive may have written some of this, and terminals obey control characters.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The causes of an error, without the address that they happened at: the last two say it all.
pub fn causes(error: &dyn Error) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    all.split_off(all.len().saturating_sub(2)).join(": ")
}

/// At most so many bytes as JSON has them, the last character `…` where there were more.
pub fn clipped(text: &str, bytes_max: usize) -> String {
    if text.chars().map(bytes_in_json).sum::<usize>() <= bytes_max {
        return text.to_owned();
    }
    let mut left = bytes_max.saturating_sub('…'.len_utf8());
    let fits = |char: &char| left.checked_sub(bytes_in_json(*char)).inspect(|rest| left = *rest).is_some();
    text.chars().take_while(fits).chain(['…']).collect()
}

fn bytes_in_json(char: char) -> usize {
    match char {
        '"' | '\\' => 2,
        char if char.is_control() => r"\u0000".len(),
        char => char.len_utf8(),
    }
}
