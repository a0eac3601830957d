//! The direct children of this process: who they are, how they end, and that none is left.
//!
//! Only direct children are ever signalled: their process ids cannot be used again before this process reaps them. As a
//! subreaper it inherits the children of those that end, so killing and reaping until there are none comes to everyone,
//! also if they use sessions, groups and forks.
use std::{fs, io, os::unix::process::ExitStatusExt, process::ExitStatus};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};
use rustix::{
    io::Errno,
    process::{WaitOptions, wait},
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        // Both fit: the kernel keeps eight bits of one and seven of the other.
        status
            .code()
            .map_or_else(|| Self::Signal(status.signal().unwrap_or_default() as u8), |code| Self::Code(code as u8))
    }
}

/// What there was to reap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended.
    Child(Pid, Exit),
    /// There are children, none of which has ended.
    NoneEnded,
    /// There are no children (ECHILD).
    NoneLeft,
}

/// Reaps one child that has ended, without waiting.
///
/// # Errors
/// None is known.
pub fn reap() -> io::Result<Reaped> {
    loop {
        // Not nix's: it makes an error of an end by a real-time signal, and the child is gone.
        return match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let exit = Exit::of(ExitStatus::from_raw(status.as_raw()));
                Ok(Reaped::Child(Pid::from_raw(pid.as_raw_nonzero().get()), exit))
            }
            Ok(None) => Ok(Reaped::NoneEnded),
            Err(Errno::CHILD) => Ok(Reaped::NoneLeft),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Ends a direct child. One that has ended is not an error.
pub fn kill_child(child: Pid) {
    // EPERM cannot be: a child that gained rights is excluded by no_new_privs, see `shim`.
    let _ = kill(child, Signal::SIGKILL);
}

/// The direct children, those included that have ended and are not reaped.
///
/// # Errors
/// /proc cannot be read.
pub fn direct() -> io::Result<Vec<Pid>> {
    match from_own_tasks() {
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(error) if error.kind() == io::ErrorKind::NotFound => from_all_processes(),
        children => children,
    }
}

/// Each thread has the children it made; those inherited are with one of them.
fn from_own_tasks() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(line) => children.extend(line.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // The thread has ended; its children are with another.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children.into_iter().map(Pid::from_raw).collect())
}

fn from_all_processes() -> io::Result<Vec<Pid>> {
    let own = getpid().as_raw();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that cannot be read has ended meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent_in(&stat) == Some(own) {
            children.push(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// The parent in a line of /proc/PID/stat: `pid (name) state parent …`, where the name may hold anything.
fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn both_ways_find_a_child_until_it_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        for found in [direct(), from_all_processes()] {
            assert!(found.unwrap().contains(&pid));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for found in [direct(), from_all_processes()] {
            assert!(!found.unwrap().contains(&pid));
        }
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("12 (cat) S 7 12 12"), Some(7));
        assert_eq!(parent_in("12 (a) S 1 (b c) R 7 12"), Some(7));
        assert_eq!(parent_in("12 cat"), None);
    }

    #[test]
    fn exits_tell_codes_from_signals() {
        assert_eq!(Exit::of(ExitStatus::from_raw(3 << 8)), Exit::Code(3));
        assert_eq!(Exit::of(ExitStatus::from_raw(9)), Exit::Signal(9));
        assert_eq!(Exit::of(ExitStatus::from_raw(35)), Exit::Signal(35), "a real-time signal");
    }
}
