//! Scenes: what is looked at on a set of machines, in order.

use std::time::Instant;

use super::Verdict;
use crate::matrix::guarded;

/// One scene on machines of the type `T`.
pub struct Scene<T> {
    /// What it shows.
    pub name: &'static str,
    /// Whether there is nothing to look at without it.
    pub needed: bool,
    pub play: fn(&mut T) -> Verdict,
}

impl<T> Scene<T> {
    /// One that no other depends on.
    pub const fn new(name: &'static str, play: fn(&mut T) -> Verdict) -> Self {
        Self {
            name,
            needed: false,
            play,
        }
    }

    /// One without which there is no other.
    pub const fn needed(name: &'static str, play: fn(&mut T) -> Verdict) -> Self {
        Self {
            name,
            needed: true,
            play,
        }
    }

    /// Those whose name contains `only`, and those that are needed.
    pub fn select<'s>(all: &'s [Self], only: Option<&str>) -> Vec<&'s Self> {
        let wanted =
            |scene: &&Self| scene.needed || only.is_none_or(|part| scene.name.contains(part));
        all.iter().filter(wanted).collect()
    }
}

/// Plays the scenes, printing as it goes, and calls `failed` after one that fails
/// for what the machines have to say about it. True when every one is fine.
pub fn play<T>(scenes: &[&Scene<T>], on: &mut T, mut failed: impl FnMut(&mut T) -> String) -> bool {
    let started = Instant::now();
    let mut failures = 0;
    for (number, scene) in (1..).zip(scenes) {
        let count = scenes.len();
        eprint!("{number:>2}/{count}  {:<58}", scene.name);
        let began = Instant::now();
        let verdict = guarded(|| (scene.play)(on));
        let seconds = began.elapsed().as_secs();
        match verdict {
            Ok(()) => eprintln!("ok  {seconds:>4} s"),
            Err(reason) => {
                failures += 1;
                eprintln!("FAILED {seconds} s\n\n{reason}\n{}", failed(on));
                if scene.needed {
                    break;
                }
            }
        }
    }
    eprintln!(
        "{} scenes, {failures} failed, {} s",
        scenes.len(),
        started.elapsed().as_secs()
    );
    failures == 0
}

/// Fails unless something holds of what was printed.
///
/// # Errors
/// It does not hold; with what was printed.
pub fn expect(holds: bool, what: &str, said: impl std::fmt::Display) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(format!("not seen: {what}, in:\n{said}").into())
    }
}

/// A line is among those that were printed.
///
/// # Errors
/// It is not; with what was printed.
pub fn expect_line(text: &str, line: &str) -> Verdict {
    expect(text.lines().any(|it| it.trim() == line), line, text)
}
