//! What is in an archive, written below one folder and nowhere else.
//!
//! Folders are folders all the time: nothing that is there is replaced, and no path leads through a link. So what an entry
//! is called is where it is, and a link that goes up no further than the root, and only at its beginning, stays below it
//! wherever the links that it meets lead.
use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use super::problem::{Problem, damaged, local, refused, rejected};

/// Of Linux.
const PATH_BYTES_MAX: usize = 4_096;
const NAME_BYTES_MAX: usize = 255;
/// Files are read-only for the containers anyway: what counts is that all may read, and who may run.
const MODE: u32 = 0o644;
const MODE_OF_PROGRAM: u32 = 0o755;
const BUFFER_BYTES: usize = 1 << 16;

/// How much a package may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the archive.
    pub archive_bytes: u64,
    /// Of all files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// What was written so far.
pub struct Tree {
    root: PathBuf,
    limits: Limits,
    buffer: Vec<u8>,
    pub bytes: u64,
    pub entries: u64,
}

impl Tree {
    /// An empty one.
    pub fn new(root: &Path, limits: Limits) -> Result<Self, Problem> {
        fs::create_dir_all(root).map_err(local("cannot write"))?;
        Ok(Self { root: root.to_owned(), limits, buffer: vec![0; BUFFER_BYTES], bytes: 0, entries: 0 })
    }

    /// A folder; one that is there already will do.
    pub fn folder(&mut self, path: &[u8]) -> Result<(), Problem> {
        let names = names(path)?;
        self.count()?;
        self.folders(path, &names).map(drop)
    }

    /// A file with what `content` gives.
    pub fn file(&mut self, path: &[u8], is_program: bool, content: &mut impl Read) -> Result<(), Problem> {
        let place = self.place(path)?;
        let mode = if is_program { MODE_OF_PROGRAM } else { MODE };
        let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        let mut file = created.map_err(|error| taken(path, &error))?;
        loop {
            let count = match content.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            self.bytes = self.bytes.saturating_add(count as u64);
            if self.bytes > self.limits.bytes {
                return Err(too_large(self.limits));
            }
            file.write_all(&self.buffer[..count]).map_err(local("cannot write"))?;
        }
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Problem> {
        let depth = names(path)?.len().saturating_sub(1);
        let place = self.place(path)?;
        if !stays_below(depth, target) {
            let target = String::from_utf8_lossy(target);
            return Err(refused(path, &format!("is a link that may lead out of the package: {target:?}")));
        }
        symlink(OsStr::from_bytes(target), place).map_err(|error| taken(path, &error))
    }

    /// Another name of a file that is there already.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Problem> {
        let wanted = names(target)?;
        let place = self.place(path)?;
        let found = wanted.iter().try_fold(self.root.clone(), |folder, name| {
            fs::symlink_metadata(&folder).ok().filter(fs::Metadata::is_dir).map(|_| folder.join(name))
        });
        let is_file = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| found.is_file());
        match found.filter(is_file) {
            Some(file) => fs::hard_link(file, place).map_err(|error| taken(path, &error)),
            None => Err(refused(path, "is a link to what is no file of the package before it")),
        }
    }

    /// Where something new goes, in a folder that is there.
    fn place(&mut self, path: &[u8]) -> Result<PathBuf, Problem> {
        let names = names(path)?;
        let (name, folders) = names.split_last().ok_or_else(|| refused(path, "has no name"))?;
        self.count()?;
        Ok(self.folders(path, folders)?.join(name))
    }

    /// Makes the folders that are not there yet.
    fn folders(&mut self, path: &[u8], names: &[&OsStr]) -> Result<PathBuf, Problem> {
        let mut folder = self.root.clone();
        for name in names {
            folder.push(name);
            match fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(refused(path, "goes through what is no folder")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.count()?;
                    fs::create_dir(&folder).map_err(local("cannot write"))?;
                }
                Err(error) => return Err(local("cannot write")(error)),
            }
        }
        Ok(folder)
    }

    fn count(&mut self) -> Result<(), Problem> {
        self.entries += 1;
        let max = self.limits.entries;
        let too_many = || rejected(format!("the archive has more than {max} entries"));
        (self.entries <= max).then_some(()).ok_or_else(too_many)
    }
}

/// What is said of an archive that is too large once it is unpacked.
pub fn too_large(limits: Limits) -> Problem {
    rejected(format!("unpacked, the archive has more than {} MiB", limits.bytes >> 20))
}

fn taken(path: &[u8], error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AlreadyExists => refused(path, "is there twice"),
        _ => local("cannot write")(error),
    }
}

/// The names that a path consists of, from the root on.
fn names(path: &[u8]) -> Result<Vec<&OsStr>, Problem> {
    if path.starts_with(b"/") {
        return Err(refused(path, "is an absolute path"));
    }
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&b"..".as_slice()) {
        return Err(refused(path, "leads out of its folder"));
    }
    let is_too_long = path.len() > PATH_BYTES_MAX || names.iter().any(|name| name.len() > NAME_BYTES_MAX);
    if is_too_long || path.contains(&0) {
        return Err(refused(path, "is no path of Linux"));
    }
    Ok(names.into_iter().map(OsStr::from_bytes).collect())
}

/// Whether a link with this target, so many folders below the root, leads to something below it.
fn stays_below(depth: usize, target: &[u8]) -> bool {
    let is_path =
        !target.is_empty() && !target.starts_with(b"/") && !target.contains(&0) && target.len() <= PATH_BYTES_MAX;
    let names = || target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let up = names().take_while(|name| *name == b"..").count();
    is_path && up <= depth && names().skip(up).all(|name| name != b"..")
}
