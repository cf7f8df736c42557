//! The wall between Rust and the host that loads it: nothing unwinds past it.
//!
//! What is loaded into Slurm or PAM calls each of its entry points through
//! [`guard`], and decides itself what a panic means there.

#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Where the last panic of this thread happened, for the log line. The
    /// objects are linked with `-z nodelete`: a host that unloads one would
    /// call this destructor later.
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

/// Runs `body`; `None` if it panicked, of which `report` gets one line. `name`
/// is the entry point, for that line. `report` itself must not panic.
pub fn guard<T>(name: &str, report: impl FnOnce(&str), body: impl FnOnce() -> T) -> Option<T> {
    silence_panics();
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let place =
                PLACE.with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()));
            report(&format!(
                "{name}: internal error, please report it: {} at {}",
                reason(&*payload),
                place.as_deref().unwrap_or("an unknown place"),
            ));
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
    fn a_panic_ends_at_the_wall_and_is_told_in_one_line_with_its_place() {
        assert_eq!(guard("hook", |_| unreachable!(), || 1), Some(1));
        let mut told = String::new();
        let end = guard(
            "hook",
            |line| told = line.to_owned(),
            || panic!("on purpose"),
        );
        assert_eq!(end, None::<i32>);
        assert!(
            told.starts_with("hook: internal error, please report it: on purpose at "),
            "{told}"
        );
        assert!(told.contains("lib.rs:"), "{told}");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let end: Option<i32> = guard("hook", |_| (), || panic::panic_any(Bomb));
        assert_eq!(end, None);
    }
}
