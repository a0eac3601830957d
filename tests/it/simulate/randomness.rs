//! The operating system's randomness, for a thread that simulates: from the seed.
//!
//! `HashMap`s and tokio's `select!` draw from it once a thread. Everywhere else, and in all other tests of this program, it
//! is the kernel's own.
use std::cell::RefCell;

thread_local! {
    static RANDOM: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on this thread's randomness follows from `seed`. Call it first of all in a thread of its own.
pub fn seed_thread(seed: u64) {
    RANDOM.set(Some(fastrand::Rng::with_seed(seed)));
    fastrand::seed(seed);
}

#[cfg(target_os = "linux")]
mod os {
    use nix::libc::{SYS_getrandom, c_uint, c_void, size_t, ssize_t, syscall};

    /// Stands in for the C library's.
    // SAFETY: same name, signature and promise: `length` bytes at `bytes` are written, and that number returned, or -1.
    #[unsafe(no_mangle)]
    #[allow(unsafe_code, reason = "the one place where a thread's randomness can be replaced")]
    unsafe extern "C" fn getrandom(bytes: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
        let is_seeded = super::RANDOM.try_with(|random| {
            let mut random = random.borrow_mut();
            let Some(random) = random.as_mut() else { return false };
            // SAFETY: the caller gives us `length` bytes to write.
            let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length) };
            random.fill(bytes);
            true
        });
        if is_seeded == Ok(true) {
            return length.cast_signed();
        }
        // SAFETY: the arguments are those that the kernel asks for.
        #[allow(clippy::useless_conversion, reason = "c_long is not everywhere as long as a pointer")]
        unsafe { syscall(SYS_getrandom, bytes, length, flags) }.try_into().unwrap_or(-1)
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_seeded_thread_draws_the_same_twice_and_others_do_not() {
    use std::{collections::hash_map::RandomState, hash::BuildHasher};
    let draw = |seed: Option<u64>| {
        let drawing = std::thread::spawn(move || {
            seed.into_iter().for_each(seed_thread);
            RandomState::new().hash_one(1)
        });
        drawing.join().unwrap()
    };
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
}
