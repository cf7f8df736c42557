//! `nvidia-cuda-mps-control` for tests: a daemon (`-d`) that keeps defaults,
//! and a client that hands it the lines of its standard input. It refuses what
//! the real one refuses: a second daemon in one pipe directory, a command it
//! does not know, a device it does not see, a limit that is no size.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

fn socket() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("CUDA_MPS_PIPE_DIRECTORY")?).join("control"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let socket = socket().ok_or("CUDA_MPS_PIPE_DIRECTORY is not set")?;
    let failed = |error: std::io::Error| format!("{}: {error}", socket.display());
    match std::env::args().nth(1).as_deref() {
        Some("-d") => {
            if UnixStream::connect(&socket).is_ok() {
                return Err("An instance of this daemon is already running".to_owned());
            }
            let _ = std::fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).map_err(failed)?;
            let program = std::env::current_exe().map_err(failed)?;
            // The child inherits the listening socket as its standard input.
            Command::new(program)
                .arg("--serve")
                .stdin(std::os::fd::OwnedFd::from(listener))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .map_err(failed)?;
            Ok(())
        }
        Some("--serve") => serve(),
        Some(other) => Err(format!("unknown argument {other}")),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(failed)?;
            let mut stream = UnixStream::connect(&socket)
                .map_err(|_| "Cannot find MPS control daemon process".to_owned())?;
            stream.write_all(text.as_bytes()).map_err(failed)?;
            stream.shutdown(std::net::Shutdown::Write).map_err(failed)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(failed)?;
            print!("{answer}");
            if answer.contains("error") {
                Err(answer)
            } else {
                Ok(())
            }
        }
    }
}

fn serve() -> Result<(), String> {
    use std::os::fd::{AsFd, OwnedFd};
    let stdin: OwnedFd = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())?;
    let listener = UnixListener::from(stdin);
    let log = std::env::var_os("CUDA_MPS_LOG_DIRECTORY")
        .map(|dir| PathBuf::from(dir).join("control.log"));
    let mut percent = 100.0;
    let mut limit = String::new();
    // Servers by number; each keeps what was the default when it started.
    let mut servers: BTreeMap<String, (f64, String)> = BTreeMap::new();
    for stream in listener.incoming() {
        let mut stream = stream.map_err(|error| error.to_string())?;
        let reader = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
        for line in reader.lines().map_while(Result::ok) {
            if let Some(log) = &log
                && let Ok(mut file) = std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(log)
            {
                let _ = writeln!(file, "{line}");
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let answer = match words.as_slice() {
                ["set_default_active_thread_percentage", value] => match value.parse::<f64>() {
                    Ok(value) if (0.0..=100.0).contains(&value) => {
                        percent = value;
                        String::new()
                    }
                    _ => "error: not a percentage\n".to_owned(),
                },
                ["get_default_active_thread_percentage"] => format!("{percent:.1}\n"),
                ["set_default_device_pinned_mem_limit", "0", value]
                    if value.ends_with(['M', 'G'])
                        && value[..value.len() - 1].parse::<u64>().is_ok() =>
                {
                    limit = (*value).to_owned();
                    String::new()
                }
                ["set_default_device_pinned_mem_limit", ..] => {
                    "error: no such device or limit\n".to_owned()
                }
                ["get_default_device_pinned_mem_limit", "0"] => format!("{limit}\n"),
                ["start_server", "-uid", _] => {
                    let number = 4000 + servers.len();
                    servers.insert(number.to_string(), (percent, limit.clone()));
                    String::new()
                }
                ["get_server_list"] => servers.keys().map(|it| format!("{it}\n")).collect(),
                ["set_active_thread_percentage", server, value] => {
                    match (servers.get_mut(*server), value.parse::<f64>()) {
                        (Some(server), Ok(value)) if (0.0..=100.0).contains(&value) => {
                            server.0 = value;
                            String::new()
                        }
                        _ => "error: no such server or not a percentage\n".to_owned(),
                    }
                }
                ["get_active_thread_percentage", server] => match servers.get(*server) {
                    Some((percent, _)) => format!("{percent:.1}\n"),
                    None => "error: no such server\n".to_owned(),
                },
                ["set_device_pinned_mem_limit", server, "0", value]
                    if value.ends_with(['M', 'G'])
                        && value[..value.len() - 1].parse::<u64>().is_ok() =>
                {
                    match servers.get_mut(*server) {
                        Some(server) => {
                            server.1 = (*value).to_owned();
                            String::new()
                        }
                        None => "error: no such server\n".to_owned(),
                    }
                }
                ["get_device_pinned_mem_limit", server, "0"] => match servers.get(*server) {
                    Some((_, limit)) => format!("{limit}\n"),
                    None => "error: no such server\n".to_owned(),
                },
                ["quit", ..] => {
                    if let Some(socket) = socket() {
                        let _ = std::fs::remove_file(socket);
                    }
                    return Ok(());
                }
                _ => "error: unknown command\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    }
    Ok(())
}
