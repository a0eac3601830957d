//! The repository's own files, as the rules about them need to see them.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A text file of the repository.
pub struct Source {
    /// Path below the root of the repository, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl Source {
    /// True for a path such as `src/plan/…` when `folder` is `src/plan`.
    pub fn is_in(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// True for `x.rs` and `rs`.
    pub fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Lines with their numbers from 1, comments blanked out. Good enough for rustfmt's output: a `//` inside a string
    /// hides the rest of that line, and block comments are not known (the repository has none, a test says so).
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that is, or is about to be, part of the repository: tracked by git, or new and not ignored.
/// Outside a git clone (a source archive): every file but `target`.
pub fn all() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let mut paths = match listed {
        Some(output) => String::from_utf8(output.stdout)
            .expect("names of files are UTF-8")
            .split_terminator('\0')
            .map(PathBuf::from)
            .collect(),
        None => walk(Path::new("")),
    };
    paths.sort();
    paths.dedup();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).ok()?; // binary, or deleted and not yet committed
        Some(Source { path: path.to_str().expect("names of files are UTF-8").to_owned(), text })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The Rust files among [`all`].
pub fn rust() -> Vec<Source> {
    all().into_iter().filter(|source| source.has_extension("rs")).collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).expect("a folder of the repository").flatten() {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            if path != Path::new("target") {
                found.extend(walk(&path));
            }
        } else {
            found.push(path);
        }
    }
    found
}
