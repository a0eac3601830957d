//! Open files handed over with the first frame. A socket is the only way to give a process a file at a number above 2
//! that needs no code between fork and exec, and does not leak into other processes started meanwhile.
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::wire::{FRAME_BYTES, Frame};

/// Files in one message.
const FILES_MAX: usize = 3;

/// What comes with a frame, in the order in which it was sent.
pub type Files = (OwnedFd, Option<OwnedFd>, Option<OwnedFd>);

/// Sends a frame and one to three files. Until they are received they stay open, also if the sender ends.
///
/// # Errors
/// The other end is closed; the socket's buffer is full.
pub fn send(socket: impl AsFd, frame: &Frame, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(files));
    let sent = sendmsg(socket, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == FRAME_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits for a frame with files: one, and perhaps others. None: the other end is closed. They are *not* closed on exec.
///
/// # Errors
/// A frame that is cut, or comes without a file.
pub fn receive(socket: impl AsFd, frame: &mut Frame) -> io::Result<Option<Files>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(frame)], &mut control, RecvFlags::empty())?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let mut files = files.flatten();
    match files.next() {
        Some(file) if received.bytes == FRAME_BYTES && !received.flags.contains(ReturnFlags::CTRUNC) => {
            Ok(Some((file, files.next(), files.next())))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
