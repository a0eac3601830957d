//! Archives: tar.gz, tar.zst and zip, known by their first bytes.
use std::{
    borrow::Cow,
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;
use zip::{ZipReadOptions, read::Config, unstable::read::ZipIterable};

use super::{
    problem::{Problem, damaged, local, refused, rejected},
    tree::{Limits, Tree, too_large},
};

/// Of the header of a tar's entry, with its long names and attributes.
const HEADER_BYTES_MAX: u64 = 256 << 10;
/// More than Linux lets a link have.
const TARGET_BYTES_MAX: u64 = 4_097;
/// Bits of a mode that say what a file is, and what makes it a program.
const KIND: u32 = 0o170_000;
const KIND_FILE: u32 = 0o100_000;
const KIND_LINK: u32 = 0o120_000;
const PROGRAM: u32 = 0o111;

/// Unpacks an archive into a folder, which is made.
pub fn unpack(archive: &Path, root: &Path, limits: Limits) -> Result<Tree, Problem> {
    let mut file = File::open(archive).map_err(local("cannot read the archive"))?;
    let mut begin = Vec::new();
    (&mut file).take(4).read_to_end(&mut begin).map_err(local("cannot read the archive"))?;
    file.rewind().map_err(local("cannot read the archive"))?;
    // A small buffer: who reads a zip goes to and fro, and each time it is filled anew.
    let (mut tree, file) = (Tree::new(root, limits)?, BufReader::new(file));
    match begin.as_slice() {
        [0x1f, 0x8b, ..] => tar(&mut tree, MultiGzDecoder::new(file), limits)?,
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let plain = zstd::Decoder::with_buffer(file).map_err(local("cannot read the archive"))?;
            tar(&mut tree, plain, limits)?;
        }
        [b'P', b'K', 3 | 5, 4 | 6] => zip(&mut tree, file)?,
        other => {
            let begin = String::from_utf8_lossy(other);
            return Err(rejected(format!("it is none of tar.gz, tar.zst and zip: it begins with {begin:?}")));
        }
    }
    Ok(tree)
}

fn tar(tree: &mut Tree, plain: impl Read, limits: Limits) -> Result<(), Problem> {
    let header_left = Rc::new(Cell::new(u64::MAX));
    let mut plain = Bounded { plain, left: limits.bytes, header_left: Rc::clone(&header_left), exceeded: false };
    let read = entries(tree, &mut plain, &header_left);
    // To its end, where the checksum of what is packed stands.
    let read = read.and_then(|()| io::copy(&mut plain, &mut io::sink()).map(drop).map_err(damaged));
    if plain.exceeded { Err(too_large(limits)) } else { read }
}

fn entries(tree: &mut Tree, plain: impl Read, header_left: &Cell<u64>) -> Result<(), Problem> {
    let mut archive = tar::Archive::new(plain);
    let mut entries = archive.entries().map_err(damaged)?;
    loop {
        header_left.set(HEADER_BYTES_MAX);
        let entry = entries.next();
        header_left.set(u64::MAX);
        let Some(entry) = entry else { return Ok(()) };
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path_bytes().into_owned();
        if is_sparse(&mut entry)? {
            return Err(refused(&path, "is a sparse file as pax has them: pack it without"));
        }
        let target = |entry: &tar::Entry<'_, _>| entry.link_name_bytes().map(Cow::into_owned).unwrap_or_default();
        match entry.header().entry_type() {
            EntryType::Directory => tree.folder(&path)?,
            // As tar wrote folders long ago.
            EntryType::Regular if path.ends_with(b"/") => tree.folder(&path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mode = entry.header().mode().map_err(damaged)?;
                tree.file(&path, mode & PROGRAM != 0, &mut entry)?;
            }
            EntryType::Symlink => tree.link(&path, &target(&entry))?,
            EntryType::Link => tree.hard_link(&path, &target(&entry))?,
            EntryType::XGlobalHeader => {} // a comment
            _ => return Err(refused(&path, "is neither a file, a folder nor a link")),
        }
    }
}

/// Its content is a map first, and its name stands elsewhere: nothing here knows that.
fn is_sparse(entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Problem> {
    let Some(extensions) = entry.pax_extensions().map_err(damaged)? else { return Ok(false) };
    Ok(extensions.flatten().any(|extension| extension.key_bytes().starts_with(b"GNU.sparse.")))
}

/// An entry at a time, as its directory names them: what reads that as a whole needs memory for all, and keeps one of each name.
fn zip(tree: &mut Tree, file: impl Read + Seek) -> Result<(), Problem> {
    let mut archive = ZipIterable::try_new(Sips(file), Config::default()).map_err(damaged)?;
    let entries = archive.files().map_err(damaged)?;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(damaged)?;
        let mut entry = entry.with_reader(entries.reader_mut(), ZipReadOptions::new()).map_err(damaged)?;
        let (path, mode) = (entry.name_raw().to_vec(), entry.unix_mode().unwrap_or(0));
        match mode & KIND {
            _ if entry.is_dir() => tree.folder(&path)?,
            0 | KIND_FILE => tree.file(&path, mode & PROGRAM != 0, &mut entry)?,
            KIND_LINK => {
                let mut target = Vec::new();
                entry.take(TARGET_BYTES_MAX).read_to_end(&mut target).map_err(damaged)?;
                tree.link(&path, &target)?;
            }
            _ => return Err(refused(&path, "is neither a file, a folder nor a link")),
        }
    }
    Ok(())
}

/// Gives little at a time. Nothing in a zip is asked for in one piece but what follows its end record, which may be as long as
/// the archive.
struct Sips<R>(R);

impl<R: Read> Read for Sips<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.len() as u64 > HEADER_BYTES_MAX {
            return Err(io::Error::other("its end record is too long"));
        }
        self.0.read(buffer)
    }
}

impl<R: Seek> Seek for Sips<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Gives so many bytes and no more: what is packed small may be large.
struct Bounded<R> {
    plain: R,
    left: u64,
    /// Of what stands between two entries' contents, which is kept in memory: long names above all.
    header_left: Rc<Cell<u64>>,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            self.exceeded = true;
            return Err(io::Error::other("too large"));
        };
        let header_left = self.header_left.get().checked_sub(count as u64);
        self.header_left.set(header_left.ok_or_else(|| io::Error::other("an entry's header is too long"))?);
        self.left = left;
        Ok(count)
    }
}
