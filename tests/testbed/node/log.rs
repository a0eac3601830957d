//! A container's log in the format of the container runtime interface: `TIME STREAM F|P TEXT`, where P
//! marks a part of a line that goes on in the next.
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::store::rotated;

/// As the kubelet's containerLogMaxSize; one older file is kept, of which `kubectl logs` shows nothing.
const MAX_BYTES: u64 = 10 << 20;
const MAX_LINE_BYTES: usize = 16 << 10;

/// Writes the log of one start of a container.
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// A stream of the container and its line in the making.
struct Stream {
    name: &'static str,
    from: File,
    line: Vec<u8>,
}

impl Log {
    pub fn create(path: &Path) -> Result<Self> {
        let folder = path.parent().context("a log needs a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, bytes: 0 })
    }

    /// Copies both streams until they end.
    pub fn follow(mut self, output: OwnedFd, errors: OwnedFd) -> Result<()> {
        let stream = |name, from: OwnedFd| Stream { name, from: from.into(), line: Vec::new() };
        let mut streams = vec![stream("stdout", output), stream("stderr", errors)];
        let mut buffer = vec![0; MAX_LINE_BYTES];
        while !streams.is_empty() {
            let readable = wait(&streams)?;
            let mut ended = Vec::new();
            for (index, stream) in streams.iter_mut().enumerate().filter(|(index, _)| readable[*index]) {
                match stream.from.read(&mut buffer) {
                    Ok(0) => ended.push(index),
                    Ok(length) => self.append(stream, &buffer[..length]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for index in ended.into_iter().rev() {
                let stream = streams.remove(index);
                if !stream.line.is_empty() {
                    self.write(stream.name, 'P', &stream.line);
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, stream: &mut Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            stream.line.extend(&bytes[..end]);
            self.write(stream.name, 'F', &stream.line);
            stream.line.clear();
            bytes = &bytes[end + 1..];
        }
        stream.line.extend(bytes);
        if stream.line.len() >= MAX_LINE_BYTES {
            self.write(stream.name, 'P', &stream.line);
            stream.line.clear();
        }
    }

    /// A full disk loses lines, never the container.
    fn write(&mut self, stream: &str, tag: char, text: &[u8]) {
        let mut line = format!("{:.9} {stream} {tag} ", Timestamp::now()).into_bytes();
        line.extend(text);
        line.push(b'\n');
        if self.bytes >= MAX_BYTES
            && fs::rename(&self.path, rotated(&self.path)).is_ok()
            && let Ok(file) = File::create(&self.path)
        {
            self.file = file;
            self.bytes = 0;
        }
        if self.file.write_all(&line).is_ok() {
            self.bytes += line.len() as u64;
        }
    }
}

/// Which streams have something to read, or have ended.
fn wait(streams: &[Stream]) -> Result<Vec<bool>> {
    let mut watched: Vec<_> =
        streams.iter().map(|stream| PollFd::new(stream.from.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut watched, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(watched.iter().map(|one| one.any().unwrap_or_default()).collect())
}
