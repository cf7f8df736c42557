//! Where another process may come in between two effects on files of the state
//! directory. In the program these functions do nothing (or sleep); in this
//! workspace's tests they hand over to a scheduler that tries every order.

use std::path::Path;
use std::time::Duration;

#[cfg(not(any(test, feature = "for-tests")))]
/// Before an effect that other processes see.
#[inline]
pub fn step() {}

#[cfg(not(any(test, feature = "for-tests")))]
/// Before the lock in this file is tried.
#[inline]
pub fn locking(_: &Path) {}

#[cfg(not(any(test, feature = "for-tests")))]
/// After a lock was released.
#[inline]
pub fn released() {}

#[cfg(not(any(test, feature = "for-tests")))]
/// Waits for another process to release a lock.
pub fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(any(test, feature = "for-tests"))]
pub use scheduler::{Actor, every_order, locking, released, step, wait};

#[cfg(any(test, feature = "for-tests"))]
mod scheduler {
    use super::{Duration, Path};
    use std::cell::RefCell;
    use std::path::PathBuf;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    /// What a thread says before it makes its next effect.
    enum Event {
        /// It is about to make one.
        Step,
        /// It is about to take this lock.
        Locking(PathBuf),
        /// It released the lock that it took last, which others may wait for.
        Released,
        /// It cannot go on before another thread releases a lock.
        Waiting,
        /// It has ended.
        Ended,
    }

    struct Link {
        scheduler: Sender<Event>,
        turn: Receiver<()>,
    }

    thread_local! {
        static LINK: RefCell<Option<Link>> = const { RefCell::new(None) };
    }

    /// Reports an event. Any but a release ends this thread's turn, and it waits
    /// for the next. False outside of a scene.
    fn report(event: Event) -> bool {
        LINK.with_borrow(|link| {
            let Some(link) = link else { return false };
            let goes_on = matches!(event, Event::Released);
            link.scheduler.send(event).unwrap();
            if !goes_on {
                link.turn.recv().unwrap();
            }
            true
        })
    }

    /// Before an effect that other processes see.
    pub fn step() {
        report(Event::Step);
    }

    /// Before the lock in this file is tried. To try one that another actor has
    /// would change nothing, so the scheduler lets it be tried when it is free.
    pub fn locking(file: &Path) {
        report(Event::Locking(file.to_owned()));
    }

    /// After a lock was released.
    pub fn released() {
        report(Event::Released);
    }

    /// Waits for another process to release a lock.
    pub fn wait(pause: Duration) {
        if !report(Event::Waiting) {
            thread::sleep(pause);
        }
    }

    /// A process of a scene.
    pub type Actor = Box<dyn FnOnce() + Send>;

    #[derive(Clone, PartialEq)]
    enum State {
        Ready,
        /// Ready once nobody has the lock in this file.
        Locking(PathBuf),
        Waiting,
        Ended,
    }

    /// What the scheduler knows of the actors.
    struct Scene {
        states: Vec<State>,
        /// The locks that each has, the last one last.
        locks: Vec<Vec<PathBuf>>,
    }

    impl Scene {
        fn can_go_on(&self, thread: usize) -> bool {
            match &self.states[thread] {
                State::Ready => true,
                State::Locking(file) => !self.locks.iter().flatten().any(|held| held == file),
                State::Waiting | State::Ended => false,
            }
        }
    }

    /// Plays a scene in every order that its actors' steps can take. `scene`
    /// makes the actors, on files of their own; `check` looks at the end, and is
    /// given the order as text. Returns the number of orders.
    pub fn every_order<S>(scene: impl Fn() -> (S, Vec<Actor>), check: impl Fn(S, &str)) -> usize {
        // The choice made at each turn, and how many there were.
        let mut choices: Vec<(usize, usize)> = Vec::new();
        let mut orders = 0;
        loop {
            let (stage, actors) = scene();
            let order = play(actors, &mut choices);
            check(stage, &order);
            orders += 1;
            while let Some((choice, of)) = choices.pop() {
                if choice + 1 < of {
                    choices.push((choice + 1, of));
                    break;
                }
            }
            if choices.is_empty() {
                return orders;
            }
        }
    }

    /// Plays it once: by `choices` as far as they reach, then by the first that
    /// can go on, which is added to them.
    fn play(actors: Vec<Actor>, choices: &mut Vec<(usize, usize)>) -> String {
        let (scheduler, events) = channel();
        let mut scene = Scene {
            states: vec![State::Ready; actors.len()],
            locks: vec![Vec::new(); actors.len()],
        };
        let mut turns = Vec::new();
        let mut threads = Vec::new();
        let mut order = String::new();
        for (thread, actor) in actors.into_iter().enumerate() {
            let (turn, its_turns) = channel();
            let scheduler = scheduler.clone();
            turns.push(turn);
            threads.push(thread::spawn(move || {
                let ended = scheduler.clone();
                let turn = its_turns;
                LINK.set(Some(Link { scheduler, turn }));
                actor();
                ended.send(Event::Ended).unwrap();
            }));
            // Up to its first step nothing of it concerns the others.
            end_of_turn(thread, &events, &mut scene, &order);
        }
        for turn in 0.. {
            let ready: Vec<usize> = (0..scene.states.len())
                .filter(|thread| scene.can_go_on(*thread))
                .collect();
            if ready.is_empty() {
                break;
            }
            if choices.len() == turn {
                choices.push((0, ready.len()));
            }
            let (choice, of) = choices[turn];
            assert_eq!(of, ready.len(), "{order}: the scene depends on chance");
            let thread = ready[choice];
            order.push_str(&thread.to_string());
            if let State::Locking(file) = &scene.states[thread] {
                scene.locks[thread].push(file.clone());
                scene.states[thread] = State::Ready;
            }
            turns[thread].send(()).unwrap();
            end_of_turn(thread, &events, &mut scene, &order);
        }
        assert!(
            scene.states.iter().all(|state| *state == State::Ended),
            "{order}: all wait for each other"
        );
        for thread in threads {
            thread.join().unwrap();
        }
        order
    }

    /// Waits until the thread, whose turn it is, has made its effect.
    fn end_of_turn(thread: usize, events: &Receiver<Event>, scene: &mut Scene, order: &str) {
        let states = &mut scene.states;
        loop {
            match events.recv_timeout(Duration::from_secs(10)) {
                Ok(Event::Step) => return,
                Ok(Event::Locking(file)) => {
                    states[thread] = State::Locking(file);
                    return;
                }
                Ok(Event::Waiting) => {
                    // Somebody outside of the scene has the lock.
                    scene.locks[thread].pop();
                    states[thread] = State::Waiting;
                    return;
                }
                Ok(Event::Ended) => {
                    states[thread] = State::Ended;
                    return;
                }
                Ok(Event::Released) => {
                    scene.locks[thread].pop();
                    for state in states.iter_mut().filter(|it| **it == State::Waiting) {
                        *state = State::Ready;
                    }
                }
                Err(_) => panic!("{order}: the last actor panicked or hangs"),
            }
        }
    }
}
