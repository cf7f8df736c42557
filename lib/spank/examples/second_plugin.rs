//! A whole SPANK plugin: `srun --second=WORD` puts the word into the
//! environment of the step's tasks, as `SECOND_PLUGIN`. That it has a SPANK prolog
//! changes what slurmd lets Prolog= and Epilog= see.

use std::ffi::OsString;

use spank::{
    Argument, Context, Failure, OptionSpec, OptionValue, Origin, Outcome, Overwrite, Plugin, Spank,
};

struct Second {
    word: Option<String>,
}

impl Plugin for Second {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec {
        name: c"second",
        value_name: Some(c"word"),
        usage: c"put this word into the environment of the tasks",
        argument: Argument::Required,
    }];

    fn load(_: &[OsString]) -> Self {
        Self { word: None }
    }

    fn option(&mut self, _: usize, value: OptionValue<'_>, _: Origin) -> Outcome {
        self.word = value.map(|word| String::from_utf8_lossy(word).into_owned());
        Ok(())
    }

    fn init_post_opt(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        match (&self.word, context) {
            (Some(word), Context::Remote) => spank
                .set_env("SECOND_PLUGIN", word, Overwrite::Yes)
                .map_err(|error| Failure(error.to_string())),
            _ => Ok(()),
        }
    }
}

spank::plugin! {
    name: "spank_second",
    plugin: Second,
    hooks: [job_prolog, init_post_opt],
}
