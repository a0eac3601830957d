//! Short fingerprints: to compare what two sides know, not to keep secrets.
use sha2::{Digest, Sha256};

/// The first bytes of the SHA-256 of these texts, one after the other, as hexadecimal digits.
pub fn fingerprint(texts: impl IntoIterator<Item = impl AsRef<str>>, bytes: usize) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.as_ref());
    }
    hexadecimal(digest.finalize().iter().take(bytes))
}

/// Two digits a byte.
pub fn hexadecimal<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
