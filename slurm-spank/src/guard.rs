//! The wall between Rust and the host: nothing unwinds past it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::log;

thread_local! {
    /// Where the last panic of this thread happened, for the log line. The
    /// object is linked with `-z nodelete`, so the destructor never outlives it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Replaces the panic hook of *this object's* std (a cdylib has its own copy):
/// the default one writes to stderr, which belongs to the host or to a task.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info
                .location()
                .map(|place| format!("{}:{}", place.file(), place.line()));
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

/// Runs `body`; if it panics, says so through Slurm's log and returns `verdict`.
///
/// `name` is the hook or callback, for the log line.
pub fn guard<T>(name: &str, verdict: T, body: impl FnOnce() -> T) -> T {
    silence_panics();
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            let place =
                PLACE.with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()));
            log::error(&format!(
                "{name}: internal error, please report it: {} at {}",
                reason(&*payload),
                place.as_deref().unwrap_or("an unknown place"),
            ));
            // A payload whose own destructor panics must not escape either.
            if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
            verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_verdict() {
        assert_eq!(guard("test", -1, || panic!("on purpose")), -1);
        assert_eq!(guard("test", -1, || 0), 0);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(guard("test", 7, || panic::panic_any(Bomb)), 7);
    }
}
