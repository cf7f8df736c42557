//! Asking AWS by its own command line: only what reads, each with a deadline,
//! and every answer is kept.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::CreateCluster;
use cluster::answers::{Answer, Answers, Question};
use host::exec::Call;
use host::{Sysroot, printable};

/// Largest answer that is read, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// How AWS is asked.
#[derive(Debug, Clone)]
pub struct Session {
    /// `--region` for every command.
    pub region: Option<String>,
    /// For each command.
    pub limit: Duration,
    /// Where the answers are kept.
    pub folder: PathBuf,
}

/// The arguments of `aws` for a question about this cluster.
#[must_use]
pub fn arguments(question: Question, cluster: &CreateCluster, region: Option<&str>) -> Vec<String> {
    let mut all: Vec<String> = verb(question).iter().map(|it| (*it).to_owned()).collect();
    match question {
        Question::Offerings => {
            let types = cluster.groups.iter().flat_map(|group| group.types());
            let types = types.map(|it| it.value.trim_start_matches("ml.").to_owned());
            all.extend(filter("instance-type", types.collect()));
        }
        Question::NetworkInterfaces => {
            // FSx writes the file system's id into its interfaces' descriptions.
            let names = cluster.groups.iter().flat_map(|group| &group.lustre);
            let ids = names.filter_map(|it| it.dns_name.value.split('.').next().map(str::to_owned));
            let ids = ids.map(|id| format!("*{id}*")).collect::<BTreeSet<_>>();
            let any = BTreeSet::from(["*fs-*".to_owned()]);
            all.extend(filter(
                "description",
                if ids.is_empty() { any } else { ids },
            ));
        }
        _ => {}
    }
    if let Some(region) = region {
        all.extend(["--region".to_owned(), region.to_owned()]);
    }
    all.extend(["--output".to_owned(), "json".to_owned()]);
    all
}

/// What reads, and nothing else.
fn verb(question: Question) -> &'static [&'static str] {
    match question {
        Question::Subnets => &["ec2", "describe-subnets"],
        Question::SecurityGroups => &["ec2", "describe-security-groups"],
        Question::Offerings => &[
            "ec2",
            "describe-instance-type-offerings",
            "--location-type",
            "availability-zone",
        ],
        Question::RouteTables => &["ec2", "describe-route-tables"],
        Question::Endpoints => &["ec2", "describe-vpc-endpoints"],
        Question::NetworkInterfaces => &["ec2", "describe-network-interfaces"],
        Question::FileSystems => &["fsx", "describe-file-systems"],
        Question::SagemakerQuotas => &[
            "service-quotas",
            "list-service-quotas",
            "--service-code",
            "sagemaker",
        ],
        Question::VpcQuotas => &[
            "service-quotas",
            "list-service-quotas",
            "--service-code",
            "vpc",
        ],
    }
}

/// A filter of EC2; without values there is nothing to ask for, and no answer
/// can be meant.
fn filter(name: &str, values: BTreeSet<String>) -> Vec<String> {
    // A comma or a quote would be the CLI's own syntax.
    let plain = |value: &String| {
        let mut chars = value.chars();
        chars.all(|c| c.is_ascii_alphanumeric() || ".-*".contains(c))
    };
    let values: Vec<String> = values.into_iter().filter(plain).collect();
    let values = values.join(",");
    vec![
        "--filters".to_owned(),
        format!("Name={name},Values={values}"),
    ]
}

/// The commands that [`ask`] runs, for a shell.
#[must_use]
pub fn commands(cluster: &CreateCluster, region: Option<&str>, folder: &Path) -> String {
    let mut text = String::new();
    for question in Question::ALL {
        let arguments = arguments(question, cluster, region);
        let quoted = arguments.iter().map(|it| quoted(it));
        let quoted: Vec<String> = quoted.collect();
        let file = quoted_path(&folder.join(question.file()));
        text += &format!("aws {} > {file}\n", quoted.join(" "));
    }
    text
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The answers that a folder has.
#[must_use]
pub fn saved(folder: &Path) -> Answers {
    let root = Sysroot::new(folder.to_owned());
    Answers::read(|question| {
        let file = question.file();
        root.read_bounded(file, LARGEST).map_err(|error| {
            if error.is_missing() {
                format!("{file} is not in {}", shown(folder))
            } else {
                error.to_string()
            }
        })
    })
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 200)
}

/// Asks AWS, and keeps the answers.
///
/// # Errors
/// There is no `aws`, or the folder cannot be made.
pub fn ask(cluster: &CreateCluster, session: &Session) -> Result<Answers, String> {
    let program = find("aws").ok_or(
        "the AWS CLI (aws) is not in PATH; --aws DIR reads answers that were saved elsewhere",
    )?;
    let folder = &session.folder;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", shown(folder)))?;
    let mut late = None;
    Ok(Answers::read(|question| {
        let command = verb(question).iter().take(2).copied();
        let command = command.collect::<Vec<_>>().join(" ");
        if let Some(late) = &late {
            return Err(format!("aws {command} was not run, because {late}"));
        }
        let arguments = arguments(question, cluster, session.region.as_deref());
        let answer = run(&program, &arguments, session.limit).map_err(|reason| {
            let reason = format!("aws {command} {reason}");
            if reason.ends_with(LATE) {
                late = Some(reason.clone());
            }
            reason
        });
        keep(&folder.join(question.file()), answer)
    }))
}

/// How the reason ends where a command was late.
const LATE: &str = "and was ended";

/// An answer, unless it could not be kept either.
fn keep(path: &Path, answer: Answer<String>) -> Answer<String> {
    // An older answer must not stand for one that failed.
    let removed = fs::remove_file(path);
    let text = answer?;
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("{}: {error}", shown(path)));
    }
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("{}: {error}", shown(path)))?;
    Ok(text)
}

fn run(program: &Path, arguments: &[String], limit: Duration) -> Answer<String> {
    let mut call = Call::to(program).map_err(|error| format!("was not run: {error}"))?;
    call = call.args(arguments).output_limit(LARGEST);
    for (name, value) in std::env::vars_os() {
        if let Some(name) = name.to_str()
            && is_passed_on(name)
        {
            call = call.env(name, value);
        }
    }
    // No pager, and no questions.
    let call = call.env("AWS_PAGER", "").env("AWS_CLI_AUTO_PROMPT", "off");
    let said = call.run(limit).map_err(|error| error.to_string())?;
    match said.status {
        None => Err(format!(
            "did not answer within {} s {LATE}",
            limit.as_secs_f32()
        )),
        Some(status) if status.success() => Ok(said.stdout),
        Some(status) => {
            let last = said.stderr.lines().rev().find(|it| !it.trim().is_empty());
            let code = status.code().map_or(-1, |code| code);
            let why = printable(last.unwrap_or("it gave no reason").trim(), 300);
            Err(format!("ended with {code}: {why}"))
        }
    }
}

/// What the AWS CLI reads of the environment: who asks, which Region, through
/// which proxy.
fn is_passed_on(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "HOME",
        "PATH",
        "LANG",
        "REQUESTS_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    name.starts_with("AWS_") || NAMES.contains(&name)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program));
    places.find(|file| file.is_file())
}
