//! What is done at which write.
use std::{fmt, str::FromStr};

/// What happens at one write. The first three end the client by SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Killed before the write is sent; it never is.
    Before,
    /// Killed once the server has answered, with the answer withheld.
    Committed,
    /// Killed a moment after the answer was handed over.
    After,
    /// The server has answered; the answer never comes.
    Lost,
    /// The connection is reset; the write is not sent.
    Reset,
    /// 429 with Retry-After; the write is not sent.
    Busy,
    /// The write passes; all watches are reset.
    Cut,
    /// The write passes; for a time watches tell nothing, those that are begun meanwhile included.
    Silent,
}

impl Fault {
    pub const ALL: [Self; 8] =
        [Self::Before, Self::Committed, Self::After, Self::Lost, Self::Reset, Self::Busy, Self::Cut, Self::Silent];

    fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Committed => "committed",
            Self::After => "after",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::Busy => "busy",
            Self::Cut => "cut",
            Self::Silent => "silent",
        }
    }

    /// Whether the client is killed.
    pub fn kills(self) -> bool {
        matches!(self, Self::Before | Self::Committed | Self::After)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// `17:committed`: a fault at the 17th write, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub write: usize,
    pub fault: Fault,
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.write, self.fault)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (write, word) = text.split_once(':')?;
            let write = write.parse().ok().filter(|write| *write > 0)?;
            let fault = Fault::ALL.into_iter().find(|fault| fault.word() == word)?;
            Some(Self { write, fault })
        };
        parse().ok_or_else(|| {
            let words: Vec<_> = Fault::ALL.iter().map(|fault| fault.word()).collect();
            format!("{text:?} is not NUMBER:WORD, like 17:committed; the words are {}", words.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_is_printed() {
        for fault in Fault::ALL {
            let point = Point { write: 17, fault };
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        for wrong in ["17", "0:before", "x:after", "17:later", ""] {
            assert!(wrong.parse::<Point>().unwrap_err().contains("17:committed"), "{wrong}");
        }
    }
}
