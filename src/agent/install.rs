//! `baton-agent install`: the agent copies itself to where other containers of its Pod can run it.
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Name of the copy.
const NAME: &str = "baton-agent";
/// Anyone may run it: the containers of a Pod need not share a user.
const MODE: u32 = 0o755;

/// Copies this program into a folder, for application images without the agent. The init container of `baton.dev/agent:
/// install` runs it.
#[derive(Clone, Debug, clap::Args)]
pub struct Install {
    /// Existing folder that other containers of the Pod mount too.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

impl Install {
    /// Copies.
    ///
    /// # Errors
    /// The folder does not exist, cannot be written to, or is full.
    pub fn run(&self) -> anyhow::Result<()> {
        install(Path::new("/proc/self/exe"), &self.to)
    }
}

/// Half of it is never seen: the copy gets its name when it is whole. One that is there already is replaced, also while
/// it runs.
fn install(program: &Path, folder: &Path) -> anyhow::Result<()> {
    let (whole, part) = (folder.join(NAME), folder.join(format!(".{NAME}.{}", std::process::id())));
    let copy = || {
        fs::copy(program, &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(MODE))?;
        fs::rename(&part, &whole)
    };
    let copied = copy();
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied.with_context(|| {
        format!("cannot write {}: --to must be a folder that is there, such as an emptyDir", whole.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_whole_and_may_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let (program, copy) = (folder.path().join("program"), folder.path().join(NAME));
        for content in ["first", "second and longer", "3rd"] {
            fs::write(&program, content).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o500)).unwrap();
            install(&program, folder.path()).unwrap();
            assert_eq!(fs::read_to_string(&copy).unwrap(), content);
            assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, MODE);
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = install(Path::new("/proc/self/exe"), Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/baton-agent: --to must be a folder"), "{error:#}");
    }
}
