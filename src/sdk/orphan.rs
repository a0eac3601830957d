//! Whether the container runtime has lost this process: its shim was killed, and the processes of the container live on.
//!
//! The kubelet starts the container again then, beside those processes. What it starts ends at once, because the old process
//! holds the lock in the shared folder, so the Pod stays down until the old process has ended, too.
use std::{
    io::{stderr, stdout},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

/// Whether nothing reads any more what this process writes: standard output and standard error are pipes whose other ends
/// were closed. A shim holds these for as long as it lives.
pub fn is_orphan() -> bool {
    is_closed(stdout().as_fd()) && is_closed(stderr().as_fd())
}

/// This is the end of a pipe whose other end is closed.
fn is_closed(end: BorrowedFd<'_>) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(end, PollFlags::empty())];
    let answer = retry_on_intr(|| poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })));
    answer.is_ok() && ends[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// D5
    #[test]
    fn a_pipe_without_a_reader_is_closed() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!is_closed(writer.as_fd()));
        drop(reader);
        assert!(is_closed(writer.as_fd()));
        let file = File::options().write(true).open("/dev/null").unwrap();
        assert!(!is_closed(file.as_fd()), "what is no pipe has no reader to lose");
    }
}
