//! An open file handed over with the first frame. A socket is the only way to give a process a file at a number above 2
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

/// Sends a frame and a file.
///
/// # Errors
/// The other end is closed; the socket's buffer is full.
pub fn send(socket: impl AsFd, frame: &Frame, file: BorrowedFd<'_>) -> io::Result<()> {
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    let sent = sendmsg(socket, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == FRAME_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits for a frame with a file. None: the other end is closed. The file is *not* closed on exec.
///
/// # Errors
/// A frame that is cut, or comes without a file.
pub fn receive(socket: impl AsFd, frame: &mut Frame) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(frame)], &mut control, RecvFlags::empty())?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    match files.flatten().next() {
        Some(file) if received.bytes == FRAME_BYTES && !received.flags.contains(ReturnFlags::CTRUNC) => Ok(Some(file)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
