//! Exit codes: what a script may tell apart.
use std::process::ExitCode;

use thiserror::Error;

use crate::client::Late;

/// How a verb has ended. The only place that knows the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// What was asked for is done; with `status`: the Rollout is complete.
    Done = 0,
    /// It failed; with `status`: the version failed, was aborted or went back.
    Failed = 1,
    /// The command line is wrong; clap ends with the same code.
    Usage = 2,
    /// The Rollout waits for a person.
    Waits = 3,
    /// `status` has waited as long as it was to.
    TimedOut = 4,
    /// There is no such object.
    NotFound = 5,
    /// The API server refuses the caller, or cannot be reached.
    NoAccess = 6,
}

/// For `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done; status: the Rollout is complete, or nothing is in progress
  1  failed; status: the version failed, was aborted or was rolled back
  2  the command line is wrong
  3  status: the Rollout waits for a person to approve or resume it
  4  status: --timeout has passed, or --watch=false and the rollout is in progress
  5  the object does not exist
  6  forbidden, or the API server cannot be reached";

/// An error that ends with a code of its own; every other one ends with [`Exit::Failed`].
#[derive(Debug, Error)]
#[error("{said}")]
struct Ended {
    exit: Exit,
    said: String,
}

impl Exit {
    /// The error with this code.
    pub fn because(self, said: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Ended { exit: self, said: said.into() })
    }

    /// The code of this error, however much was said around it.
    pub fn of(error: &anyhow::Error) -> Self {
        let code = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Ended>() {
            Some(ended) => Some(ended.exit),
            None => cause.is::<Late>().then_some(Self::NoAccess),
        };
        error.chain().find_map(code).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_inside_others() {
        let error = Exit::NotFound.because("web not found");
        assert_eq!(Exit::of(&error), Exit::NotFound);
        let around: anyhow::Error = Err::<(), _>(error).context("web cannot be applied").unwrap_err();
        assert_eq!(Exit::of(&around), Exit::NotFound);
        assert_eq!(format!("{around:#}"), "web cannot be applied: web not found");
        assert_eq!(Exit::of(&Late.into()), Exit::NoAccess);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything else")), Exit::Failed);
    }

    #[test]
    fn the_help_names_every_code() {
        let codes =
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::Waits, Exit::TimedOut, Exit::NotFound, Exit::NoAccess];
        for (line, exit) in HELP.lines().skip(1).zip(codes) {
            assert!(line.trim_start().starts_with(&format!("{}  ", exit as u8)), "{line}");
        }
    }
}
