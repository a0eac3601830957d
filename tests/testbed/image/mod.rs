//! `baton-testbed image`: programs become one OCI image, in a file, without a container engine.
//!
//! - [`program`]: what may become an image; [`content`]: what every image has beside its program;
//! - [`layer`]: files as a layer; [`layout`]: layers as an image of several architectures, in one tarball;
//! - [`materials`]: what the program is built from.
//!
//! The same input gives the same bytes. Nothing is taken from the machine but the programs.
mod content;
mod layer;
mod layout;
mod materials;
mod program;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use self::{
    layer::{File, Layer},
    layout::{Image, Layout},
    program::Program,
};

/// Titles and descriptions, by the name of the program.
const DESCRIPTIONS: [(&str, &str, &str); 2] = [
    ("baton-operator", "Baton operator", env!("CARGO_PKG_DESCRIPTION")),
    ("baton-agent", "Baton agent", "The Pod side of Baton: fetches packages, runs listeners and hands them over"),
];

/// Arguments of `baton-testbed image`.
#[derive(clap::Args)]
pub struct Args {
    /// What to call it, without a tag; its last part is the name of the program.
    #[arg(long)]
    repository: String,
    /// Its tag.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// A program; once for each architecture, the first of which `docker load` takes.
    #[arg(long = "program", required = true)]
    programs: Vec<PathBuf>,
    /// A program must be smaller than this, in MiB.
    #[arg(long, default_value_t = 16)]
    mebibytes_max: usize,
    /// The commit it is made of.
    #[arg(long)]
    revision: String,
    /// When that was made, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    created: i64,
    /// Where its source is.
    #[arg(long)]
    source: Option<String>,
    /// What cargo-cyclonedx says that it is built from.
    #[arg(long)]
    materials: PathBuf,
    /// What `cargo tree` says of the same.
    #[arg(long)]
    tree: PathBuf,
    /// What `rustc --version` says of the compiler.
    #[arg(long)]
    compiler: String,
    /// The tarball. The bill of materials gets the same name, with another ending.
    #[arg(long)]
    to: PathBuf,
}

impl Args {
    /// Of the program.
    fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

/// Writes the tarball, and says what is in it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let programs =
        args.programs.iter().map(|path| Program::read(path, args.mebibytes_max)).collect::<Result<Vec<_>>>()?;
    let (layout, digest) = make(args, &programs)?;
    if let Some(folder) = args.to.parent() {
        fs::create_dir_all(folder)?;
    }
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let materials = materials::of_program(args.name(), &read(&args.materials)?, &read(&args.tree)?, &args.compiler)?;
    for (path, bytes) in [(args.to.clone(), layout), (args.to.with_extension("cdx.json"), materials)] {
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let sizes = programs.iter().map(|program| format!("{} {}", program.architecture, program.size()));
    println!("{}", args.to.display());
    println!("  {}:{}@{digest}", args.repository, args.tag);
    println!("  program: {}", sizes.collect::<Vec<_>>().join(", "));
    Ok(ExitCode::SUCCESS)
}

/// The tarball, and the digest of the image in it.
fn make(args: &Args, programs: &[Program]) -> Result<(Vec<u8>, String)> {
    let name = args.name();
    let Some((_, title, description)) = DESCRIPTIONS.iter().find(|(known, ..)| *known == name) else {
        bail!("--repository must end with /baton-operator or /baton-agent, not {name:?}");
    };
    let created = Timestamp::from_second(args.created).context("--created")?;
    let labels = labels(args, title, description, created);
    let base = Layer::of(&content::files()?, created)?;
    let mut layout = Layout::default();
    for program in programs {
        let path = format!("usr/local/bin/{name}");
        let file = File { path: path.clone(), content: program.bytes.clone(), executable: true };
        let layers = [base.clone(), Layer::of(&[file], created)?];
        let image = Image { entrypoint: format!("/{path}"), architecture: program.architecture, created };
        layout.add(&image, &layers, &labels)?;
    }
    layout.finish(&format!("{}:{}", args.repository, args.tag), &labels, created)
}

fn labels(args: &Args, title: &str, description: &str, created: Timestamp) -> BTreeMap<String, String> {
    let labels = [
        ("created", created.to_string()),
        ("description", description.to_owned()),
        ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ("revision", args.revision.clone()),
        ("title", title.to_owned()),
        ("version", args.tag.clone()),
    ];
    let source = args.source.clone().filter(|source| !source.is_empty()).map(|source| ("source", source));
    labels.into_iter().chain(source).map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}
