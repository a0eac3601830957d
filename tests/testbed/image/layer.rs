//! Files as a layer of an image.
use std::{collections::BTreeSet, io::Write, path::Path};

use anyhow::Result;
use baton::api::fingerprint::hexadecimal;
use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

pub struct File {
    /// From the root, without a leading slash.
    pub path: String,
    pub content: Vec<u8>,
    pub executable: bool,
}

#[derive(Clone)]
pub struct Layer {
    /// tar, gzip.
    pub bytes: Vec<u8>,
    /// Of the tar alone.
    pub diff_id: String,
}

impl Layer {
    /// Files that belong to root, in the order of their paths, and the folders that they are in.
    pub fn of(files: &[File], created: Timestamp) -> Result<Self> {
        let mut files: Vec<&File> = files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let folders: BTreeSet<&Path> =
            files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1)).collect();
        let mut tar = Builder::new(Vec::new());
        for folder in folders.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
            let mut header = header(EntryType::Directory, 0o755, 0, created);
            tar.append_data(&mut header, folder, &[][..])?;
        }
        for file in files {
            let mode = if file.executable { 0o755 } else { 0o644 };
            let mut header = header(EntryType::Regular, mode, file.content.len(), created);
            tar.append_data(&mut header, &file.path, &*file.content)?;
        }
        let tar = tar.into_inner()?;
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&tar)?;
        Ok(Self { bytes: gzip.finish()?, diff_id: digest(&tar) })
    }
}

/// Nothing in it depends on who writes it, or when.
pub fn header(kind: EntryType, mode: u32, size: usize, created: Timestamp) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(created.as_second().try_into().unwrap_or_default());
    header.set_uid(0);
    header.set_gid(0);
    header
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}
