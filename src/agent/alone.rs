//! One agent in a Pod: two would both claim the Pod's session, and each would run every listener of it.
use std::{
    fs::{File, TryLockError},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

const FILE: &str = "agent.lock";
/// Locked by the guards of an agent, which may outlive it by a moment where it is not PID 1 of its container.
const GUARDS_FILE: &str = "guards.lock";
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// The exclusive lock on a folder that all containers of the Pod share (an emptyDir). Ends with the process, however that
/// ends: programs that it starts do not inherit it.
#[derive(Debug)]
pub struct Alone {
    _file: File,
}

/// Why an agent may not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one runs.
    #[error("another agent runs in this Pod: it holds {}", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be used.
    #[error(
        "cannot lock {}: {cause}. All containers of the Pod share that folder: mount an emptyDir there, or name another \
         one with --state-dir",
        path.display()
    )]
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
        try_lock(folder.join(FILE)).map(|file| Self { _file: file })
    }
}

/// What the guards of an agent are to keep open ([`super::exec::Guards::keeping`]): the lock is on the open file, so it lasts
/// as long as the last of them.
#[derive(Debug)]
pub struct GuardsLock {
    /// The open file.
    pub file: OwnedFd,
    /// No agent has used this folder before: where there was one in this Pod, the lock says nothing of its guards.
    pub is_new: bool,
}

/// Waits until no guard of an earlier agent is left. Cancel-safe.
///
/// # Errors
/// The folder cannot be used.
pub async fn outlive_guards(folder: &Path) -> Result<GuardsLock, Error> {
    let path = folder.join(GUARDS_FILE);
    let is_new = path.try_exists().is_ok_and(|exists| !exists);
    let mut told = false;
    loop {
        match try_lock(path.clone()) {
            Ok(file) => return Ok(GuardsLock { file: file.into(), is_new }),
            Err(Error::Taken(_)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("waiting for the guards of an earlier agent of this Pod to end");
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What unlocks it is the last close of this open file, wherever that was inherited to.
fn try_lock(path: PathBuf) -> Result<File, Error> {
    let file = match File::options().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        Err(cause) => return Err(Error::Unusable { path, cause }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Taken(path)),
        Err(TryLockError::Error(cause)) => Err(Error::Unusable { path, cause }),
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

    /// H8: and a folder that is new tells nothing of them.
    #[tokio::test]
    async fn the_guards_of_an_earlier_agent_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let lock = outlive_guards(folder.path()).await.unwrap();
        assert!(lock.is_new);
        let guards = lock.file.try_clone().unwrap();
        drop(lock); // the agent has died, and a guard lives
        let wait = tokio::time::timeout(3 * LOOK, outlive_guards(folder.path()));
        assert!(wait.await.is_err());
        drop(guards);
        assert!(!outlive_guards(folder.path()).await.unwrap().is_new);
        assert!(matches!(outlive_guards(&folder.path().join("missing")).await, Err(Error::Unusable { .. })));
    }
}
