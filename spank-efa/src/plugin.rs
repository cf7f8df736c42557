//! The hooks, each a switch on the program that the plugin runs in.

use std::ffi::OsString;

use hugepages::{Settings, hugetlb_cgroup};
use spank::{Context, Failure, OptionSpec, OptionValue, Origin, Outcome, Plugin, Spank, log};

use crate::arguments::Arguments;
use crate::client::Client;
use crate::options;
use crate::slurmstepd::Stepd;

/// The plugin's state in one process.
pub struct Efa {
    arguments: Arguments,
    client: Client,
    stepd: Stepd,
}

impl Efa {
    #[cfg(feature = "panic-injection")]
    #[expect(clippy::disallowed_macros, reason = "test builds panic on purpose")]
    fn maybe_panic(&self, hook: &str) {
        assert!(
            self.arguments.panic.as_deref() != Some(hook),
            "injected panic in {hook}"
        );
    }

    #[cfg(not(feature = "panic-injection"))]
    #[expect(clippy::unused_self, reason = "test builds use it")]
    fn maybe_panic(&self, _hook: &str) {}
}

impl Plugin for Efa {
    const OPTIONS: &'static [OptionSpec] = options::OPTIONS;

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
            Origin::Client | Origin::Environment => {
                self.client.option(index, value, origin, &self.arguments)
            }
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
            Context::Slurmd => slurmd_starts(&self.arguments),
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
                self.client.init_post_opt(spank, context, &self.arguments);
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

    fn task_init_privileged(&mut self, _: &mut Spank<'_>) -> Outcome {
        self.maybe_panic("task_init_privileged");
        self.stepd.task_init_privileged();
        Ok(())
    }

    fn task_init(&mut self, spank: &mut Spank<'_>) -> Outcome {
        self.maybe_panic("task_init");
        if self.stepd.has_failed() {
            self.stepd.requeue(spank);
            // An error from an `optional` plugin would be ignored and the task
            // would run. This child exists only to become the task.
            spank::end_task();
        }
        Ok::<(), Failure>(())
    }

    fn task_exit(&mut self, spank: &mut Spank<'_>) -> Outcome {
        self.maybe_panic("task_exit");
        self.stepd.task_exit(spank);
        Ok(())
    }
}

/// The administrator reads slurmd's log when it starts; users would only meet
/// these faults later.
fn slurmd_starts(arguments: &Arguments) {
    let config = match arguments.load_config() {
        Ok(config) => config,
        Err(reason) => {
            log::error(&format!(
                "spank_efa: {reason}; jobs with --efa-profile will fail until this is mended"
            ));
            return;
        }
    };
    for warning in &config.warnings {
        log::info(&format!("spank_efa: {warning}"));
    }
    if let Err(error) = usage::Settings::of(&config) {
        log::error(&format!(
            "spank_efa: {error}; no job is reported until this is mended"
        ));
    }
    match Settings::of(&config) {
        Ok(settings) => {
            if settings.isolate
                && let Some(complaint) = hugetlb_cgroup::complaint()
            {
                log::error(&format!("spank_efa: {complaint}"));
            }
        }
        Err(error) => log::error(&format!(
            "spank_efa: {error}; no hugepages are reserved until this is mended"
        )),
    }
    if config.state_dir.as_str().contains("%n") {
        log::info(&format!(
            "spank_efa: {}: state_dir contains %n, but hugepages belong to the machine: where \
             several slurmd run on one, they must have one state_dir, or each takes the other's \
             pages for the administrator's",
            config.path.display()
        ));
    }
}
