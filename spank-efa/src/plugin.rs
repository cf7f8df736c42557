//! The hooks, each a switch on the program that the plugin runs in.

use std::ffi::OsString;

use slurm_spank::{Context, Failure, OptionSpec, OptionValue, Origin, Outcome, Plugin, Spank, log};

use crate::arguments::Arguments;
use crate::client::Client;
use crate::request;
use crate::stepd::Stepd;

/// The plugin's state in one process.
pub struct Efa {
    arguments: Arguments,
    client: Client,
    stepd: Stepd,
}

impl Efa {
    #[cfg(feature = "panic-injection")]
    fn maybe_panic(&self, hook: &str) {
        assert!(
            self.arguments.panic.as_deref() != Some(hook),
            "injected panic in {hook}"
        );
    }

    #[cfg(not(feature = "panic-injection"))]
    #[allow(clippy::unused_self)]
    fn maybe_panic(&self, _hook: &str) {}
}

impl Plugin for Efa {
    const OPTIONS: &'static [OptionSpec] = request::OPTIONS;

    fn load(words: &[OsString]) -> Self {
        Self {
            arguments: Arguments::parse(words),
            client: Client::default(),
            stepd: Stepd::default(),
        }
    }

    fn option(&mut self, index: usize, value: OptionValue<'_>, origin: Origin) -> Outcome {
        self.maybe_panic("option");
        match origin {
            Origin::Client => self.client.option(index, value, &self.arguments),
            Origin::Node => {
                self.stepd.option(index, value);
                Ok(())
            }
        }
    }

    fn init(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        self.maybe_panic("init");
        match context {
            Context::Local | Context::Allocator => self.client.init(),
            Context::Remote => self.stepd.init(spank),
            // The administrator reads slurmd's log when it starts; users would
            // only meet the error later.
            Context::Slurmd => {
                if let Err(reason) = self.arguments.load_config() {
                    log::error(&format!(
                        "spank_efa: {reason}; jobs with --efa-profile will fail until this is mended"
                    ));
                }
            }
            Context::JobScript => {}
        }
        Ok(())
    }

    fn init_post_opt(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        self.maybe_panic(if context == Context::Remote {
            "init_post_opt_remote"
        } else {
            "init_post_opt"
        });
        match context {
            Context::Local | Context::Allocator => {
                self.client.init_post_opt(context, &self.arguments);
                Ok(())
            }
            // Never an error: on a node it would drain it. The tasks fail instead.
            Context::Remote => {
                self.stepd.init_post_opt(spank, &self.arguments);
                Ok(())
            }
            Context::Slurmd | Context::JobScript => Ok(()),
        }
    }

    fn user_init(&mut self, spank: &mut Spank<'_>) -> Outcome {
        self.maybe_panic("user_init");
        self.stepd.user_init(spank);
        Ok(())
    }

    fn task_init(&mut self, _: &mut Spank<'_>) -> Outcome {
        self.maybe_panic("task_init");
        if self.stepd.has_failed() {
            // An error from an `optional` plugin would be ignored and the task
            // would run. This child exists only to become the task.
            slurm_spank::end_task();
        }
        Ok::<(), Failure>(())
    }
}
