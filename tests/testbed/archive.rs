//! Images as archives that any container engine loads: one layer of given files.
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    str::FromStr,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

/// No file of an image belongs to root's processes only.
const USER: &str = "65532:65532";

/// Arguments of `baton-testbed archive`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the archive.
    #[arg(long)]
    out: PathBuf,
    /// The image's name: example.local/web:1.0.
    #[arg(long)]
    name: String,
    /// A file of the image; the shared libraries that it needs come too. May be repeated.
    #[arg(long = "file", value_name = "PATH=FROM", required = true)]
    files: Vec<Entry>,
    /// What a container runs: path and arguments. The first file unless given.
    #[arg(long, num_args = 1..)]
    entrypoint: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut entries = args.files;
    let first = format!("/{}", entries[0].at.display());
    entries.extend(libraries(&entries)?);
    let entrypoint = if args.entrypoint.is_empty() { vec![first] } else { args.entrypoint };
    Archive { name: args.name, entrypoint, entries }.write(&args.out)?;
    Ok(ExitCode::SUCCESS)
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without the slash at its head.
    pub at: PathBuf,
    pub from: PathBuf,
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, from) = text.split_once('=').ok_or_else(|| format!("{text:?} is not PATH=FROM"))?;
        Ok(Self { at: at.trim_start_matches('/').into(), from: from.into() })
    }
}

/// The shared libraries and the loader of all programs among `entries`, once each.
fn libraries(entries: &[Entry]) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in entries {
        let output = Command::new("ldd").arg(&entry.from).output().context("cannot run ldd")?;
        // It fails for a script and for a static program: they need none.
        for path in paths(&String::from_utf8_lossy(&output.stdout)) {
            let library = Entry { at: path.trim_start_matches('/').into(), from: path.into() };
            if !found.contains(&library) {
                found.push(library);
            }
        }
    }
    Ok(found)
}

/// Of lines such as `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn paths(told: &str) -> impl Iterator<Item = &str> {
    told.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// An image of one layer.
pub struct Archive {
    pub name: String,
    pub entrypoint: Vec<String>,
    pub entries: Vec<Entry>,
}

impl Archive {
    /// As `docker save` writes it.
    pub fn write(&self, out: &Path) -> Result<()> {
        let layer = self.layer()?;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "User": USER, "Env": ["PATH=/image:/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hash(&layer))] },
        })
        .to_string();
        let config_name = format!("{}.json", hash(config.as_bytes()));
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"] }]).to_string();
        let new = out.with_extension("new");
        let mut archive = Builder::new(File::create(&new).with_context(|| format!("cannot write {}", new.display()))?);
        append(&mut archive, Path::new("layer.tar"), &layer, 0o644)?;
        append(&mut archive, Path::new(&config_name), config.as_bytes(), 0o644)?;
        append(&mut archive, Path::new("manifest.json"), manifest.as_bytes(), 0o644)?;
        archive.into_inner()?;
        fs::rename(&new, out).with_context(|| format!("cannot write {}", out.display()))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        folder(&mut layer, "tmp/", 0o1777)?;
        for entry in &self.entries {
            let content = fs::read(&entry.from).with_context(|| format!("cannot read {}", entry.from.display()))?;
            append(&mut layer, &entry.at, &content, 0o755)?;
        }
        Ok(layer.into_inner()?)
    }
}

fn append<W: Write>(archive: &mut Builder<W>, at: &Path, content: &[u8], mode: u32) -> Result<()> {
    ensure!(at.is_relative(), "{} is not a path in an image", at.display());
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, at, content).with_context(|| format!("cannot pack {}", at.display()))
}

fn folder<W: Write>(archive: &mut Builder<W>, at: &str, mode: u32) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    Ok(archive.append_data(&mut header, at, std::io::empty())?)
}

fn hash(content: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
    }
    text
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn libraries_are_read_off_what_ldd_prints() {
        let told =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(paths(told).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(paths("\tstatically linked\n").count(), 0);
    }
}
