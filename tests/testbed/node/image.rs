//! Images: `example.local/NAME:TAG` is the folder `IMAGES/NAME/TAG`.
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use super::model::{PULL_ERROR, Waiting};

/// The one registry there is.
pub const REGISTRY: &str = "example.local";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;
/// An image of more files than this is a mistake, a link to `/` say.
const MAX_FILES: usize = 100_000;

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub folder: PathBuf,
    /// `example.local/NAME@sha256:…`
    pub id: String,
}

/// The images of a node.
pub struct Images {
    folder: PathBuf,
    /// Digests by what the file system says of the files: reading them all at every start would cost
    /// more than the start.
    digests: Mutex<BTreeMap<PathBuf, (Vec<FileState>, String)>>,
}

/// Path, modification time (seconds, nanoseconds), size, mode and inode of a file.
type FileState = (PathBuf, i64, i64, u64, u32, u64);

impl Images {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, digests: Mutex::default() }
    }

    /// Finds an image: what a pull is elsewhere.
    pub fn find(&self, reference: &str) -> Result<Image, Waiting> {
        let invalid = || Waiting {
            reason: "InvalidImageName",
            message: format!(
                "Failed to apply default image tag \"{reference}\": couldn't parse image name \"{reference}\": invalid reference format"
            ),
        };
        let (named, wanted) = split_digest(reference).ok_or_else(invalid)?;
        let (registry, name, tag) = parse(named).ok_or_else(invalid)?;
        let failed = |why: String| Waiting {
            reason: PULL_ERROR,
            message: format!("failed to pull and unpack image \"{registry}/{name}:{tag}\": {why}"),
        };
        if registry != REGISTRY {
            return Err(failed(format!("{registry} cannot be reached: this node has images of {REGISTRY} only")));
        }
        let folder = self.folder.join(name).join(tag);
        if !folder.is_dir() {
            return Err(failed(format!("{registry}/{name}:{tag}: not found")));
        }
        // A tag may be a link to another one's folder.
        let folder = folder.canonicalize().map_err(|error| failed(error.to_string()))?;
        let digest = self.digest(&folder).map_err(|error| failed(error.to_string()))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
            return Err(failed(format!("{registry}/{name}@sha256:{wanted}: not found")));
        }
        Ok(Image { folder, id: format!("{REGISTRY}/{name}@sha256:{digest}") })
    }

    fn digest(&self, folder: &Path) -> io::Result<String> {
        let mut files = Vec::new();
        list(folder, Path::new(""), &mut files)?;
        files.sort();
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, digest)) = digests.get(folder)
            && *known == files
        {
            return Ok(digest.clone());
        }
        let mut hash = Sha256::new();
        for (path, _, _, size, mode, _) in &files {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(format!("\0{mode:o}\0{size}\0"));
            io::copy(&mut fs::File::open(folder.join(path))?, &mut HashWriter(&mut hash))?;
        }
        let digest = hex(&hash.finalize());
        digests.insert(folder.to_owned(), (files, digest.clone()));
        Ok(digest)
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn list(root: &Path, below: &Path, files: &mut Vec<FileState>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let path = below.join(entry?.file_name());
        let metadata = fs::metadata(root.join(&path))?;
        if metadata.is_dir() {
            list(root, &path, files)?;
        } else if metadata.is_file() {
            files.push((
                path,
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.size(),
                metadata.mode(),
                metadata.ino(),
            ));
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

/// `web:1.2@sha256:0123…` → `web:1.2`, `0123…`. A digest is looked for under the tag.
fn split_digest(reference: &str) -> Option<(&str, Option<&str>)> {
    let Some((named, digest)) = reference.split_once('@') else { return Some((reference, None)) };
    let digits = digest.strip_prefix("sha256:")?;
    let is_sound = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_sound.then_some((named, Some(digits)))
}

/// Registry, name and tag of a reference by the grammar of the distribution project, without its digest.
fn parse(reference: &str) -> Option<(&str, &str, &str)> {
    let (registry, rest) = match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", reference),
    };
    let (name, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    let sound = valid_registry(registry)
        && registry.len() + name.len() < MAX_NAME_BYTES
        && name.split('/').all(valid_component)
        && valid_tag(tag);
    sound.then_some((registry, name, tag))
}

fn valid_registry(registry: &str) -> bool {
    let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|byte| alphanumeric(*byte));
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

fn valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_parsed_as_elsewhere() {
        assert_eq!(parse("example.local/web:1.0"), Some(("example.local", "web", "1.0")));
        assert_eq!(parse("example.local/team/web-app"), Some(("example.local", "team/web-app", "latest")));
        assert_eq!(parse("web"), Some(("docker.io", "web", "latest")));
        assert_eq!(parse("localhost:5000/web:1"), Some(("localhost:5000", "web", "1")));
        for bad in [
            "",
            "Web",
            "example.local/",
            "example.local/web:",
            "example.local/../x",
            "example.local/a//b",
            "example.local/web:../x",
            "example.local/web:.x",
            "example.local/a___b",
            "-x.y/web",
            "a b",
            "example.local/web:1:2",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_image_is_a_folder_and_its_id_changes_with_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("web/1.0");
        fs::create_dir_all(image.join("lib")).unwrap();
        fs::write(image.join("lib/data"), "one").unwrap();
        let images = Images::new(folder.path().canonicalize().unwrap());
        let first = images.find("example.local/web:1.0").unwrap();
        assert!(first.id.starts_with("example.local/web@sha256:"));
        assert_eq!(images.find("example.local/web:1.0").unwrap(), first);
        fs::write(image.join("lib/data"), "another").unwrap();
        assert_ne!(images.find("example.local/web:1.0").unwrap().id, first.id);
        let reason = |reference| images.find(reference).unwrap_err().reason;
        assert_eq!(reason("example.local/web:1.1"), "ErrImagePull");
        assert_eq!(reason("web:1.0"), "ErrImagePull");
        assert_eq!(reason("WEB"), "InvalidImageName");
    }
}
