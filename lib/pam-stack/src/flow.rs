//! The walk of libpam over a chain: which rules it asks and what the stack then
//! says, for given answers, and for all answers that modules could give.

use std::collections::BTreeSet;

use crate::chain::{Kind, Link};
use crate::control::{Action, Code};

/// What the rules said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Impression {
    /// Nothing that counts.
    None,
    /// A success counts.
    Success,
    /// Another answer counts, which an action took for good.
    Other,
    /// The stack has failed.
    Failed,
}

impl Impression {
    /// What the application gets at the end: only a success that counts is one.
    fn succeeds(self) -> bool {
        self == Self::Success
    }

    fn after(self, action: Action, code: Code) -> Self {
        match (action, self) {
            (Action::Ok | Action::Done, Self::None | Self::Success) => match code {
                Code::SUCCESS => Self::Success,
                _ => Self::Other,
            },
            (Action::Bad | Action::Die, _) => Self::Failed,
            _ => self,
        }
    }
}

/// Where a walk is: before the link `at`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: usize,
    impression: Impression,
    /// The impression at the begin of the chain and of each substack that the
    /// last link was in: what `reset` goes back to.
    at_begin: Vec<Impression>,
}

impl Place {
    fn start() -> Self {
        Self {
            at: 0,
            impression: Impression::None,
            at_begin: vec![Impression::None],
        }
    }

    /// Comes to the link here, which may enter or leave substacks.
    fn come_to(&mut self, link: &Link) {
        self.at_begin.truncate(link.level + 1);
        while self.at_begin.len() <= link.level {
            self.at_begin.push(self.impression);
        }
    }

    /// The link here, which calls a module, gets this answer.
    fn answered(&mut self, chain: &[Link], action: Action, code: Code) {
        self.impression = match action {
            Action::Reset => self.at_begin.last().copied().unwrap_or(Impression::None),
            _ => self.impression.after(action, code),
        };
        match action {
            // A stack that has failed goes on, so that nobody learns where.
            Action::Done if self.impression == Impression::Failed => self.at += 1,
            Action::Done | Action::Die => self.leave(chain),
            Action::Jump(over) => self.jump(chain, over),
            _ => self.at += 1,
        }
    }

    /// Goes to the end of the chain or substack that the link here is in.
    fn leave(&mut self, chain: &[Link]) {
        let Some(level) = chain.get(self.at).map(|link| link.level) else {
            return;
        };
        self.at += 1;
        while chain.get(self.at).is_some_and(|next| next.level >= level) {
            self.at += 1;
        }
    }

    /// Passes over rules, of which a substack is one. One too many fails the
    /// stack.
    fn jump(&mut self, chain: &[Link], over: u32) {
        let Some(level) = chain.get(self.at).map(|link| link.level) else {
            return;
        };
        let next_level = |at: usize| chain.get(at + 1).map(|next| next.level);
        let mut left = over;
        while left > 0 && next_level(self.at).is_some_and(|next| next >= level) {
            self.at += 1;
            while next_level(self.at).is_some_and(|next| next > level) {
                self.at += 1;
            }
            left -= 1;
        }
        if left > 0 {
            self.impression = Impression::Failed;
        }
        self.at += 1;
    }
}

/// What a walk did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// The links that were asked, in order.
    pub asked: Vec<usize>,
    /// Whether the application is told that the phase succeeded.
    pub success: bool,
}

/// The walk where the module of each link answers so.
pub fn walk(chain: &[Link], mut answer: impl FnMut(usize) -> Code) -> Walked {
    let mut place = Place::start();
    let mut asked = Vec::new();
    while let Some(link) = chain.get(place.at) {
        place.come_to(link);
        let Kind::Module { control, .. } = &link.kind else {
            place.at += 1;
            continue;
        };
        asked.push(place.at);
        let code = answer(place.at);
        place.answered(chain, control.action(code), code);
    }
    Walked {
        asked,
        success: place.impression.succeeds(),
    }
}

/// How a link can be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// However the phase ends.
    Any,
    /// In a phase that succeeds.
    Success,
}

/// The link that can lead past `target` so that the phase ends in this way
/// without having asked it; `None` where `target` is asked whatever the other
/// modules answer. Of several, the first in the chain.
#[must_use]
pub fn passed_over(chain: &[Link], target: usize, end: End) -> Option<usize> {
    let mut open = vec![(Place::start(), None)];
    let mut seen = BTreeSet::new();
    let mut by: Option<usize> = None;
    while let Some((mut place, passing)) = open.pop() {
        if place.at == target {
            continue;
        }
        let Some(link) = chain.get(place.at) else {
            let ends = end == End::Any || place.impression.succeeds();
            if let (true, Some(passing)) = (ends, passing) {
                by = Some(by.map_or(passing, |by| by.min(passing)));
            }
            continue;
        };
        place.come_to(link);
        if !seen.insert((place.clone(), passing)) {
            continue;
        }
        let Kind::Module {
            control, module, ..
        } = &link.kind
        else {
            place.at += 1;
            open.push((place, passing));
            continue;
        };
        for code in answers_of(module) {
            let mut next = place.clone();
            next.answered(chain, control.action(code), code);
            let passes = place.at < target && next.at > target;
            let passing = if passes { Some(place.at) } else { passing };
            open.push((next, passing));
        }
    }
    by
}

/// What a module can answer: anything, but for the two that always say the same.
fn answers_of(module: &str) -> Vec<Code> {
    let name = module.rsplit('/').next().unwrap_or(module);
    match name {
        "pam_permit.so" => vec![Code::SUCCESS],
        "pam_deny.so" => [6, 7, 14, 20].map(Code).to_vec(),
        _ => Code::all().collect(),
    }
}
