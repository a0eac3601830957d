//! Instructions of one look, by callgrind: the same on every machine, however busy, so that a change of the code shows.
//!
//! What setting the scene costs is taken off by counting twice, with one look and with several.
use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{look::Scene, table};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
const LOOKS: u64 = 5;

/// The table, or None where there is no valgrind.
pub fn measure(dir: &Path) -> Result<Option<String>> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok(None);
    }
    std::fs::create_dir_all(dir)?;
    let mut rows = Vec::new();
    for (scene, name, title) in [
        (Scene::Settled, "settled", "settled: nothing to do"),
        (Scene::Rolling, "rolling", "in mid-roll: half are updated, a quarter is missing"),
    ] {
        let mut cells = Vec::new();
        for pods in SIZES {
            let once = count(dir, pods, name, 1)?;
            let often = count(dir, pods, name, 1 + LOOKS)?;
            let look = often.saturating_sub(once) / LOOKS;
            println!("  {scene:?}, {pods} Pods: {look} instructions a look");
            cells.push(format!("{:.2} ({:.1})", look as f64 / 1e6, look as f64 / 1e3 / pods as f64));
        }
        rows.push((title.to_owned(), cells));
    }
    let head = SIZES.map(|pods| format!("{pods} Pods"));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    Ok(Some(table::rows("million instructions (thousand per Pod)", &head, rows.into_iter())))
}

fn count(dir: &Path, pods: usize, scene: &str, looks: u64) -> Result<u64> {
    let out = dir.join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).args(["bench", "look", "--scene", scene]);
    command.args(["--pods", &pods.to_string(), "--looks", &looks.to_string()]);
    let output = command.output().context("cannot run valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind: {}\n{errors}", output.status);
    total(&errors).with_context(|| format!("valgrind does not say how many instructions it has counted:\n{errors}"))
}

/// Of the line `==1== Collected : 123`.
fn total(errors: &str) -> Option<u64> {
    errors.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_total_is_found() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(super::total(text), Some(123_456));
    }
}
