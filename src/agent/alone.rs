//! One agent in a Pod: two would both claim the Pod's session, and each would run every listener of it.
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

const FILE: &str = "agent.lock";

/// The exclusive lock on a folder that all containers of the Pod share (an emptyDir). Ends with the process, however that
/// ends: programs that it starts do not inherit it.
#[derive(Debug)]
pub struct Alone {
    _file: Flock<File>,
}

/// Why an agent may not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one runs.
    #[error("another agent runs in this Pod: it holds {}", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be used.
    #[error("cannot lock {}: {cause}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What prevents it.
        #[source]
        cause: io::Error,
    },
}

impl Alone {
    /// Takes the lock, or says at once who is in the way: a second agent is a mistake in the Pod, not something to wait for.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn claim(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            Err(cause) => return Err(Error::Unusable { path, cause }),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::Taken(path)),
            Err((_, cause)) => Err(Error::Unusable { path, cause: cause.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = Alone::claim(folder.path()).unwrap();
        let refused = Alone::claim(folder.path()).unwrap_err();
        assert!(matches!(&refused, Error::Taken(path) if path.ends_with(FILE)), "{refused}");
        drop(first);
        Alone::claim(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_missing_is_not_another_agent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Alone::claim(&folder.path().join("missing")), Err(Error::Unusable { .. })));
    }
}
