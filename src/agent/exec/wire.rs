//! What agent and guard say to each other over their socket: frames of two words.
//!
//! Both are the same program, so there are no versions; the fixed length keeps the guard free of a parser.
use super::{Cause, Ended, Exit, Proof};
use crate::agent::boottime::Boottime;

/// Length of every frame.
pub const FRAME_BYTES: usize = 16;
/// A frame as it is sent.
pub type Frame = [u8; FRAME_BYTES];

/// What an agent says to a guard. Times are absolute, so that a frame means the same however late it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Kill everything at this time, instead of at that said before.
    Deadline(Boottime),
    /// Ask the child to end (SIGTERM) and kill everything at this time, or at the deadline if that is earlier.
    Stop(Boottime),
}

impl Order {
    /// To be sent.
    pub fn encode(self) -> Frame {
        match self {
            Self::Deadline(at) => frame(1, at.as_nanos()),
            Self::Stop(at) => frame(2, at.as_nanos()),
        }
    }

    /// As received. None: no such frame.
    pub fn decode(frame: &Frame) -> Option<Self> {
        match words(frame) {
            (1, at) => Some(Self::Deadline(Boottime::from_nanos(at))),
            (2, at) => Some(Self::Stop(Boottime::from_nanos(at))),
            _ => None,
        }
    }
}

const CAUSES: [Cause; 5] = [Cause::Exited, Cause::Stopped, Cause::StopTimeout, Cause::Deadline, Cause::NotStarted];

/// The only thing a guard says: nothing of its listener is left.
pub fn encode_end(cause: Cause, exit: Option<Exit>) -> Frame {
    let cause = CAUSES.iter().position(|known| *known == cause).unwrap_or(CAUSES.len());
    let exit = match exit {
        None => 0,
        Some(Exit::Code(code)) => 0x100 + u64::from(code),
        Some(Exit::Signal(signal)) => 0x200 + u64::from(signal),
    };
    frame(cause as u64, exit)
}

/// As received by the agent. None: no such frame.
pub fn decode_end(frame: &Frame) -> Option<Ended> {
    let (cause, exit) = words(frame);
    let cause = *CAUSES.get(usize::try_from(cause).ok()?)?;
    let value = (exit & 0xff) as u8;
    let exit = match exit >> 8 {
        0 if value == 0 => None,
        1 => Some(Exit::Code(value)),
        2 => Some(Exit::Signal(value)),
        _ => return None,
    };
    Some(Ended { cause, exit, proof: Proof::Guard })
}

fn frame(first: u64, second: u64) -> Frame {
    let mut frame = [0; FRAME_BYTES];
    frame[..8].copy_from_slice(&first.to_le_bytes());
    frame[8..].copy_from_slice(&second.to_le_bytes());
    frame
}

fn words(frame: &Frame) -> (u64, u64) {
    let word = |from: usize| frame[from..from + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    (word(0), word(8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn orders_arrive_as_sent(at: u64) {
            for order in [Order::Deadline(Boottime::from_nanos(at)), Order::Stop(Boottime::from_nanos(at))] {
                prop_assert_eq!(Order::decode(&order.encode()), Some(order));
            }
        }

        #[test]
        fn ends_arrive_as_sent(cause in 0..CAUSES.len(), value: u8) {
            for exit in [None, Some(Exit::Code(value)), Some(Exit::Signal(value))] {
                let ended = Ended { cause: CAUSES[cause], exit, proof: Proof::Guard };
                prop_assert_eq!(decode_end(&encode_end(ended.cause, exit)), Some(ended));
            }
        }

        #[test]
        fn nothing_else_panics(bytes: Frame) {
            let _ = (Order::decode(&bytes), decode_end(&bytes));
        }
    }

    #[test]
    fn other_frames_are_refused() {
        assert_eq!(Order::decode(&[0; FRAME_BYTES]), None);
        assert_eq!(decode_end(&frame(CAUSES.len() as u64, 0)), None);
        assert_eq!(decode_end(&frame(0, 0x300)), None);
        // A cause that only the agent can give is not a guard's to tell.
        assert_eq!(decode_end(&encode_end(Cause::GuardLost, None)), None);
    }
}
