//! A program that may become an image: static, stripped and small.
use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// ELF's numbers of machines, and what OCI calls them.
const ARCHITECTURES: [(u16, &str); 2] = [(62, "amd64"), (183, "arm64")];
/// The program header of what needs a dynamic linker.
const PT_INTERP: u32 = 3;

pub struct Program {
    pub bytes: Vec<u8>,
    /// As OCI calls it.
    pub architecture: &'static str,
}

impl Program {
    /// Reads a program that must be smaller than so many MiB.
    pub fn read(path: &Path, mebibytes_max: usize) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::of(bytes, mebibytes_max).with_context(|| format!("{} cannot be an image's program", path.display()))
    }

    pub fn of(bytes: Vec<u8>, mebibytes_max: usize) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "it is no 64-bit ELF file");
        let machine = u16::from_le_bytes(field(&bytes, 18)?);
        let Some((_, architecture)) = ARCHITECTURES.into_iter().find(|(number, _)| *number == machine) else {
            bail!("its machine is number {machine}, neither amd64 nor arm64");
        };
        let first = usize::try_from(u64::from_le_bytes(field(&bytes, 32)?))?;
        let (size, count) = (u16::from_le_bytes(field(&bytes, 54)?), u16::from_le_bytes(field(&bytes, 56)?));
        for number in 0..usize::from(count) {
            let kind = u32::from_le_bytes(field(&bytes, first.saturating_add(number * usize::from(size)))?);
            ensure!(kind != PT_INTERP, "it is linked dynamically: build it for a musl target");
        }
        let program = Self { bytes, architecture };
        let is_small = program.bytes.len() >> 20 < mebibytes_max;
        ensure!(is_small, "it has {}, and must have less than {mebibytes_max} MiB", program.size());
        Ok(program)
    }

    pub fn size(&self) -> String {
        format!("{:.1} MiB", self.bytes.len() as f64 / f64::from(1 << 20))
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().context("it is damaged")
}
