//! What became of a Pod's package: the last words of the init container that fetches it.
use serde::{Deserialize, Serialize};

use crate::api::bounds::MESSAGE_CHARS_MAX;

/// What the volume of a package has in it once it is whole.
pub const FOLDER: &str = "package";
/// Below [`FOLDER`]: what containers see.
pub const FILES: &str = "files";
/// Below [`FOLDER`]: a file with the SHA-256 of the archive.
pub const SHA256: &str = "sha256";

/// Of an archive.
pub const ARCHIVE_BYTES_MAX: u64 = 2 << 30;
/// Of all files that are in it.
pub const BYTES_MAX: u64 = 8 << 30;
/// Files, folders and links that are in it.
pub const ENTRIES_MAX: u64 = 200_000;

/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// The termination message of the init container, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result")]
pub enum Fetched {
    /// Its files are there.
    Unpacked {
        /// SHA-256 of the archive, in lower-case hexadecimal digits.
        sha256: String,
    },
    /// It is not what it should be: another try would find the same.
    Rejected {
        /// A sentence that names the package.
        message: String,
    },
    /// It could not be had for a minute.
    Unavailable {
        /// A sentence that names the package.
        message: String,
    },
}

impl Fetched {
    /// None: these are not the agent's words.
    pub fn read(words: &str) -> Option<Self> {
        let clip = |message: String| message.chars().take(MESSAGE_CHARS_MAX).collect();
        Some(match serde_json::from_str(words).ok()? {
            Self::Unpacked { sha256 } => {
                let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
                let is_whole = sha256.len() == SHA256_DIGITS && sha256.bytes().all(is_digit);
                is_whole.then_some(Self::Unpacked { sha256 })?
            }
            Self::Rejected { message } => Self::Rejected { message: clip(message) },
            Self::Unavailable { message } => Self::Unavailable { message: clip(message) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agents_own_words_are_understood() {
        let sha256 = "0f".repeat(32);
        let said = Fetched::Unpacked { sha256: sha256.clone() };
        let words = serde_json::to_string(&said).unwrap();
        assert_eq!(words, format!(r#"{{"result":"Unpacked","sha256":"{sha256}"}}"#));
        assert_eq!(Fetched::read(&words), Some(said));
        let long = Fetched::Rejected { message: "x".repeat(5_000) };
        let read = Fetched::read(&serde_json::to_string(&long).unwrap());
        assert_eq!(read, Some(Fetched::Rejected { message: "x".repeat(MESSAGE_CHARS_MAX) }));
        for words in ["", "done", "{}", r#"{"result":"Unpacked","sha256":"0F"}"#, r#"{"result":"Other"}"#] {
            assert_eq!(Fetched::read(words), None, "{words}");
        }
    }
}
