//! What libpam does with each answer of a module: a rule's control.

/// An answer of a module, by its number (`PAM_SUCCESS` is 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u8);

impl Code {
    /// `PAM_SUCCESS`.
    pub const SUCCESS: Self = Self(0);
    /// `PAM_PERM_DENIED`.
    pub const PERM_DENIED: Self = Self(6);
    /// `PAM_IGNORE`.
    pub const IGNORE: Self = Self(25);

    /// All answers that libpam knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).zip(NAMES).map(|(number, _)| Self(number))
    }

    /// Its name in a control.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }
}

/// The names of the answers in a control, by number (`_pam_types.h`).
const NAMES: [&str; 32] = [
    "success",
    "open_err",
    "symbol_err",
    "service_err",
    "system_err",
    "buf_err",
    "perm_denied",
    "auth_err",
    "cred_insufficient",
    "authinfo_unavail",
    "user_unknown",
    "maxtries",
    "new_authtok_reqd",
    "acct_expired",
    "session_err",
    "cred_unavail",
    "cred_expired",
    "cred_err",
    "no_module_data",
    "conv_err",
    "authtok_err",
    "authtok_recover_err",
    "authtok_lock_busy",
    "authtok_disable_aging",
    "try_again",
    "ignore",
    "abort",
    "authtok_expired",
    "module_unknown",
    "bad_item",
    "conv_again",
    "incomplete",
];

/// What libpam does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The answer has no say.
    Ignore,
    /// It counts, unless the stack has failed already.
    Ok,
    /// As `Ok`, and unless the stack has failed, it ends (a substack, where it
    /// is in one).
    Done,
    /// The stack fails.
    Bad,
    /// As `Bad`, and the stack ends.
    Die,
    /// What the stack said is forgotten.
    Reset,
    /// The next rules of this number are passed over.
    Jump(u32),
}

/// The control of a rule that calls a module: an action for each answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    actions: Box<[Action; NAMES.len()]>,
}

impl Control {
    /// What `text` says: one of the four words, or `[answer=action …]`. `None`
    /// where libpam would not understand it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let pairs = match text {
            "required" => "success=ok new_authtok_reqd=ok ignore=ignore default=bad",
            "requisite" => "success=ok new_authtok_reqd=ok ignore=ignore default=die",
            "optional" => "success=ok new_authtok_reqd=ok default=ignore",
            "sufficient" => "success=done new_authtok_reqd=done default=ignore",
            _ => text.strip_prefix('[')?.strip_suffix(']')?,
        };
        let mut given = [None; NAMES.len()];
        let mut default = None;
        for pair in pairs.split_ascii_whitespace() {
            let (answer, action) = pair.split_once('=')?;
            let action = action_of(action)?;
            if answer == "default" {
                // The first one sets what nothing was said of.
                default.get_or_insert(action);
                continue;
            }
            let number = NAMES.iter().position(|name| *name == answer)?;
            *given.get_mut(number)? = Some(action);
        }
        // libpam's own default where the control has none.
        let default = default.unwrap_or(Action::Bad);
        Some(Self {
            actions: Box::new(given.map(|action| action.unwrap_or(default))),
        })
    }

    /// What it does with this answer; an answer that libpam does not know fails
    /// the stack.
    #[must_use]
    pub fn action(&self, code: Code) -> Action {
        let action = self.actions.get(usize::from(code.0));
        action.copied().unwrap_or(Action::Bad)
    }
}

fn action_of(text: &str) -> Option<Action> {
    Some(match text {
        "ignore" => Action::Ignore,
        "ok" => Action::Ok,
        "done" => Action::Done,
        "bad" => Action::Bad,
        "die" => Action::Die,
        "reset" => Action::Reset,
        _ => {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match digits.then(|| text.parse::<u16>().ok()).flatten()? {
                // libpam does not understand a jump over nothing.
                0 => return None,
                many => Action::Jump(u32::from(many)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_short_for_what_the_manual_says() {
        let required = Control::parse("required").unwrap();
        assert_eq!(required.action(Code::SUCCESS), Action::Ok);
        assert_eq!(required.action(Code::IGNORE), Action::Ignore);
        assert_eq!(required.action(Code::PERM_DENIED), Action::Bad);
        let sufficient = Control::parse("sufficient").unwrap();
        assert_eq!(sufficient.action(Code::SUCCESS), Action::Done);
        assert_eq!(sufficient.action(Code::PERM_DENIED), Action::Ignore);
    }

    #[test]
    fn what_a_control_says_nothing_of_follows_its_default_or_fails() {
        let jump = Control::parse("[success=2 default=ignore]").unwrap();
        assert_eq!(jump.action(Code::SUCCESS), Action::Jump(2));
        assert_eq!(jump.action(Code::PERM_DENIED), Action::Ignore);
        let bare = Control::parse("[success=ok]").unwrap();
        assert_eq!(bare.action(Code::PERM_DENIED), Action::Bad);
        assert_eq!(bare.action(Code(200)), Action::Bad);
    }

    #[test]
    fn what_libpam_would_not_understand_is_no_control() {
        for text in [
            "perhaps",
            "[success]",
            "[success=perhaps]",
            "[sucess=ok]",
            "success=ok",
            "[a",
            "[success=-1]",
            "[success=0]",
        ] {
            assert_eq!(Control::parse(text), None, "{text}");
        }
    }
}
