//! The page that measured tables stand in: each between markers of its own, the words around them written by hand.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

/// Replaces what stands between the markers of `section`.
pub fn write(page: &Path, section: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let new = replaced(&old, section, text).with_context(|| format!("no markers {section:?} in {}", page.display()))?;
    fs::write(page, new).with_context(|| format!("cannot write {}", page.display()))
}

fn replaced(page: &str, section: &str, text: &str) -> Option<String> {
    let (open, close) = (format!("<!-- measured: {section} -->"), format!("<!-- /measured: {section} -->"));
    let (before, rest) = page.split_once(&open)?;
    let (_, after) = rest.split_once(&close)?;
    Some(format!("{before}{open}\n{}\n{close}{after}", text.trim()))
}

/// What the figures depend on, in a line: date, commit, machine, versions.
pub fn circumstances(load: &str, versions: &str) -> String {
    let commit = commit();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("a processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = output("uname", &["-sr"]);
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    format!(
        "{date}, commit {commit}, {processors} × {model}, {kernel}; {versions}. Load average of the machine at the start: {load}."
    )
}

/// The commit that is checked out, and whether anything was changed since.
pub fn commit() -> String {
    output("git", &["describe", "--always", "--dirty", "--exclude=*"])
}

/// The load averages of the last 1, 5 and 15 minutes.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// What a command prints; nothing where it cannot.
pub fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
}

/// Versions of the control plane's programs in `bin`.
pub fn versions(bin: &Path) -> String {
    let word = |program: &str, line: &str| {
        let text = output(bin.join(program), &["--version"]);
        let found = text.lines().find_map(|it| it.strip_prefix(line)).unwrap_or("?");
        found.trim().to_owned()
    };
    let kubernetes = word("kube-apiserver", "Kubernetes ");
    let (etcd, kwok) = (word("etcd", "etcd Version: "), word("kwok", "kwok version "));
    let kwok = kwok.split_whitespace().next().unwrap_or("?");
    format!("Kubernetes {kubernetes}, etcd {etcd}, kwok {kwok}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_is_replaced() {
        let page = "a\n<!-- measured: x -->\nold\n<!-- /measured: x -->\nb\n";
        let expect = "a\n<!-- measured: x -->\nnew\n<!-- /measured: x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").as_deref(), Some(expect));
        assert_eq!(replaced(page, "y", "new"), None);
    }
}
