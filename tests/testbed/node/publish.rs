//! Files of a volume, replaced all at once as the kubelet does: the folder holds links into `..data`,
//! itself a link to a folder with the content, which one rename exchanges.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_new";

/// A file's mode and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Files by their path in the volume.
pub type Files = BTreeMap<PathBuf, File>;

/// Makes `folder` hold exactly these files.
pub fn publish(folder: &Path, files: &Files) -> Result<()> {
    for path in files.keys() {
        let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
        ensure!(plain && !path.as_os_str().is_empty(), "{}: not a path within the volume", path.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if current(folder).is_some_and(|current| current == *files) {
        return Ok(());
    }
    replace(folder, files).with_context(|| format!("cannot write {}", folder.display()))
}

/// What the folder holds now.
fn current(folder: &Path) -> Option<Files> {
    let data = folder.join(DATA).canonicalize().ok()?;
    let mut files = Files::new();
    collect(&data, Path::new(""), &mut files).ok()?;
    Some(files)
}

fn collect(data: &Path, below: &Path, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(data.join(below))? {
        let path = below.join(entry?.file_name());
        let metadata = fs::metadata(data.join(&path))?;
        if metadata.is_dir() {
            collect(data, &path, files)?;
        } else {
            let content = fs::read(data.join(&path))?;
            files.insert(path, File { mode: metadata.permissions().mode() & 0o777, content });
        }
    }
    Ok(())
}

fn replace(folder: &Path, files: &Files) -> io::Result<()> {
    let old = fs::read_link(folder.join(DATA)).ok();
    let new = if old.as_deref() == Some(Path::new("..0")) { "..1" } else { "..0" };
    let content = folder.join(new);
    if content.exists() {
        fs::remove_dir_all(&content)?; // of a node that died here
    }
    fs::create_dir(&content)?;
    for (path, File { mode, content: bytes }) in files {
        let path = content.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&content))?;
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    let _ = fs::remove_file(folder.join(NEW_DATA));
    symlink(new, folder.join(NEW_DATA))?;
    fs::rename(folder.join(NEW_DATA), folder.join(DATA))?;
    link(folder, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(())
}

/// Links what users see: the first component of each path.
fn link(folder: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<_> =
        files.keys().filter_map(|path| path.components().next()).map(Component::as_os_str).collect();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !wanted.contains(name.as_os_str()) {
            fs::remove_file(folder.join(name))?;
        }
    }
    for name in wanted {
        let link = folder.join(name);
        if !link.is_symlink() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        let file = |content: &str| File { mode: 0o640, content: content.into() };
        pairs.iter().map(|(path, content)| (PathBuf::from(path), file(content))).collect()
    }

    #[test]
    fn content_is_exchanged_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        publish(folder, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_to_string(folder.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(folder.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(folder.join(DATA)).unwrap();
        publish(folder, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_link(folder.join(DATA)).unwrap(), before, "nothing has changed");
        publish(folder, &files(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "3");
        assert!(!folder.join("sub").exists());
        assert!(!folder.join(before).exists());
    }

    #[test]
    fn paths_stay_within_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["../a", "/a", "", "a/../../b"] {
            assert!(publish(folder.path(), &files(&[(bad, "")])).is_err(), "{bad}");
        }
    }
}
