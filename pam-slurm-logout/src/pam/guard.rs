//! The wall between Rust and sshd: nothing unwinds past it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::ffi;

thread_local! {
    /// Where the last panic happened, for the log. The module is linked with
    /// `-z nodelete`: libpam unloads it, and this destructor would run later.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The default hook writes to stderr, which is the host's.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info
                .location()
                .map(|at| format!("{}:{}", at.file(), at.line()));
            PLACE.with(|slot| {
                if let Ok(mut slot) = slot.try_borrow_mut() {
                    *slot = place;
                }
            });
        }));
    });
}

fn reason(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Runs `body`; `None` if it panicked, which the log then tells.
pub fn guard<T>(name: &str, body: impl FnOnce() -> T) -> Option<T> {
    silence_panics();
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let place = PLACE.with(|slot| slot.try_borrow_mut().ok().and_then(|mut it| it.take()));
            ffi::log(
                libc::LOG_ERR,
                &format!(
                    "{name}: internal error, please report it: {} at {}",
                    reason(&*payload),
                    place.as_deref().unwrap_or("an unknown place"),
                ),
            );
            // A payload whose own destructor panics must not escape either.
            if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_wall() {
        assert_eq!(guard("test", || 1), Some(1));
        assert_eq!(guard("test", || -> i32 { panic!("on purpose") }), None);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(guard("test", || -> i32 { panic::panic_any(Bomb) }), None);
    }
}
