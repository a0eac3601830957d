//! Whether the container runtime has lost this agent: its shim was killed, and the processes of the container live on.
//!
//! The kubelet starts the container again then, beside those processes. The new agent ends at once, because the old one
//! holds `agent.lock`, so the Pod stays down until the old one has ended, too.
use std::{
    io::{stderr, stdout},
    os::fd::{AsFd, BorrowedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Why such an agent ends, once its session is silent and it runs nothing.
pub const WHY: &str =
    "the container runtime no longer watches this container, the session was not renewed for D, and no listener runs";

/// Whether nothing reads any more what this process writes: standard output and standard error are pipes whose other ends
/// were closed. A shim holds these for as long as it lives.
pub fn is_orphan() -> bool {
    is_closed(stdout().as_fd()) && is_closed(stderr().as_fd())
}

/// This is the end of a pipe whose other end is closed.
fn is_closed(end: BorrowedFd<'_>) -> bool {
    let mut ends = [PollFd::new(end, PollFlags::empty())];
    let answer = poll(&mut ends, PollTimeout::ZERO);
    answer.is_ok() && ends[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_closed() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert!(!is_closed(writer.as_fd()));
        drop(reader);
        assert!(is_closed(writer.as_fd()));
        let file = File::options().write(true).open("/dev/null").unwrap();
        assert!(!is_closed(file.as_fd()), "what is no pipe has no reader to lose");
    }
}
