//! What processes cost, by /proc.
use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};

/// The kernel tells CPU time in these units, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// What one process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Resident now, in KiB.
    pub resident_kib: u64,
    /// Resident at most, since its start, in KiB.
    pub peak_kib: u64,
}

/// The processes that this one has started, and theirs, by pid: name of the program.
pub fn descendants() -> Result<BTreeMap<i32, String>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let mut found = BTreeMap::new();
    let mut open = vec![i32::try_from(std::process::id())?];
    while let Some(parent) = open.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            found.insert(pid, program(pid));
            open.push(pid);
        }
    }
    Ok(found)
}

/// Usage of all descendants and this process, by program; of several processes of one program, the sum.
pub fn usage() -> Result<BTreeMap<String, Usage>> {
    let mut all: BTreeMap<String, Usage> = BTreeMap::new();
    let this = (i32::try_from(std::process::id())?, "bench".to_owned());
    for (pid, name) in descendants()?.into_iter().chain([this]) {
        let Some(one) = usage_of(pid) else { continue };
        let sum = all.entry(name).or_default();
        sum.cpu += one.cpu;
        sum.resident_kib += one.resident_kib;
        sum.peak_kib += one.peak_kib;
    }
    Ok(all)
}

/// CPU time that all processes of the machine have used since its start, and what was taken from it by its host.
pub fn machine_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user and nice already.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, it)| it).sum();
    Ok(TICK * u32::try_from(busy).unwrap_or(u32::MAX))
}

/// What stands in /proc/PID/stat behind the name, which may hold anything: state, parent, …
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn program(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let word = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let word = String::from_utf8_lossy(word);
    word.rsplit('/').next().unwrap_or_default().to_owned()
}

fn usage_of(pid: i32) -> Option<Usage> {
    let fields = stat(pid)?;
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Usage {
        cpu: TICK * ticks(11)?.saturating_add(ticks(12)?),
        resident_kib: kib("VmRSS:").unwrap_or_default(),
        peak_kib: kib("VmHWM:").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    #[test]
    fn a_child_is_found_and_its_work_is_seen() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = child.id() as i32;
        let deadline = Instant::now() + Duration::from_secs(20);
        while usage_of(pid).unwrap().cpu < Duration::from_millis(50) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (all, seen) = (descendants().unwrap(), usage_of(pid).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(all.get(&pid).map(String::as_str), Some("sh"));
        assert!(seen.cpu >= Duration::from_millis(50) && seen.peak_kib >= seen.resident_kib, "{seen:?}");
        assert!(seen.resident_kib > 0 && machine_cpu().unwrap() >= seen.cpu);
    }
}
