//! What may go wrong with a package.
use std::{error::Error, fmt::Display};

/// Characters of a path in messages.
const PATH_CHARS_MAX: usize = 200;

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
    rejected(format!("the archive is damaged: {}", clipped(&printable(&error.to_string()), PATH_CHARS_MAX)))
}

/// What is wrong with an entry of an archive.
pub fn refused(path: &[u8], why: &str) -> Problem {
    let path = clipped(&String::from_utf8_lossy(path), PATH_CHARS_MAX);
    rejected(format!("the archive is refused: {path:?} {why}"))
}

/// Whoever wrote the archive may have written some of this, and terminals obey control characters.
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

/// At most so many characters, the last one `…` where there were more.
pub fn clipped(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}
