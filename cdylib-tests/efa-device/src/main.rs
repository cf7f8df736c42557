//! `efa-device serve SOCKET...`: a device at each socket, for QEMU's
//! `vfio-user-pci`; `efa-device tell SOCKET REQUEST`: steers one.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::{Args, Parser};
use efa_device::{Configuration, CounterSet, Fabric, Model, control, server};

/// An EFA device made up for tests, for the kernel's own driver in a QEMU guest.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Serve a device at each socket. All of them are on one fabric.
    Serve(Serve),
    /// Ask the device at a socket for something.
    #[command(after_help = format!("Requests:\n{}", control::USAGE))]
    Tell {
        /// The device's socket.
        socket: PathBuf,
        /// What to do, as words.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        request: Vec<String>,
    },
}

#[derive(Args)]
struct Serve {
    /// The instance type whose devices these are: p4d, p5, p5en, p6.
    #[arg(long, default_value = "p5")]
    model: Model,
    /// How many counters of the port the devices have: 22, or 17 without those of the
    /// network, which a driver newer than Linux 6.12 cannot do without.
    #[arg(long, value_parser = counters, default_value = "22")]
    counters: CounterSet,
    /// The time limit of the admin queue in milliseconds, up to 1500 in steps of 100;
    /// 0 leaves the driver its own 30 s.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = admin_timeout)]
    admin_timeout: u32,
    /// How many MSI-X vectors there are; all but the first have an event queue.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=128))]
    interrupts: u16,
    /// How many of a hundred packets are lost.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = control::loss)]
    loss: u32,
    /// How long work takes to arrive.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = control::milliseconds)]
    delay: Duration,
    /// Which packets are lost: the same for the same seed and order of work.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write what guests do to standard error.
    #[arg(long, short)]
    verbose: bool,
    /// Where the devices are served; SOCKET.ctl beside each steers it.
    #[arg(required = true, value_name = "SOCKET")]
    sockets: Vec<PathBuf>,
}

fn counters(word: &str) -> Result<CounterSet, String> {
    match word {
        "17" => Ok(CounterSet::Old),
        "22" => Ok(CounterSet::Network),
        _ => Err("use 17 or 22".to_owned()),
    }
}

fn admin_timeout(word: &str) -> Result<u32, String> {
    let milliseconds: u32 = word.parse().map_err(|_| "not a number".to_owned())?;
    if milliseconds > 1500 || !milliseconds.is_multiple_of(100) {
        return Err("use a multiple of 100 up to 1500".to_owned());
    }
    Ok(milliseconds / 100)
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Serve(arguments) => serve(&arguments),
        Command::Tell { socket, request } => {
            let socket = server::control_socket(&socket);
            control::tell(&socket, &request.join(" ")).map(|reply| println!("{reply}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("efa-device: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Serve) -> Result<(), String> {
    server::allow_many_files();
    let mut model = arguments.model;
    model.counters = arguments.counters;
    let configuration = Configuration {
        model,
        admin_timeout: arguments.admin_timeout,
        vectors: arguments.interrupts,
        verbose: arguments.verbose,
    };
    let fabric = Fabric::new(&configuration, arguments.sockets.len(), arguments.seed);
    fabric.settings().loss.store(arguments.loss, Relaxed);
    let delay = arguments.delay.as_millis() as u64;
    fabric.settings().delay.store(delay, Relaxed);
    let ready = || {
        println!("ready");
        let _ = io::stdout().flush();
    };
    server::serve(fabric, &arguments.sockets, ready).map_err(|error| error.to_string())
}
