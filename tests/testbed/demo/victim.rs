//! The process of a Pod, found among the processes of this machine.
use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Kills the process called `command` with this `VARIABLE=value`, which names its Pod, in its environment. With SIGKILL, as
/// the kernel does when memory is short. Answers its pid.
///
/// From outside: a process cannot send SIGKILL to PID 1 of its own namespace.
pub fn kill_process_of(variable: &str, command: &str) -> Result<i32> {
    let pid = find(Path::new("/proc"), variable, command).with_context(|| {
        format!("no process {command} with {variable} on this machine: the Pods must run here for that")
    })?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    // Whoever kills another one like it must not find this one again.
    while is_it(&Path::new("/proc").join(pid.to_string()), variable, command) {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(pid)
}

fn find(proc: &Path, variable: &str, command: &str) -> Option<i32> {
    let processes = fs::read_dir(proc).ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid: &i32| is_it(&proc.join(pid.to_string()), variable, command))
}

/// Of one that is dead nothing can be read.
fn is_it(folder: &Path, variable: &str, command: &str) -> bool {
    let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
    let environment = fs::read(folder.join("environ")).unwrap_or_default();
    name.trim_end() == command && environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_told_by_its_name_and_its_pod() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, environment) in [
            ("1", "init", "A=b"),
            ("20", "sh", "BATON_POD_NAME=web-1-abc\0A=b"),
            ("21", "web", "BATON_POD_NAME=web-1-abcd\0"),
            ("22", "web", "A=b\0BATON_POD_NAME=web-1-abc\0"),
            ("self", "web", "BATON_POD_NAME=web-1-abc"),
        ] {
            let folder = proc.path().join(pid);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
            fs::write(folder.join("environ"), environment).unwrap();
        }
        assert_eq!(find(proc.path(), "BATON_POD_NAME=web-1-abc", "web"), Some(22));
        assert_eq!(find(proc.path(), "BATON_POD_NAME=web-2-abc", "web"), None);
    }
}
