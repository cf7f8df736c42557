//! `slurm::conf::gres_conf` against Slurm, on generated trees of gres.conf and a file
//! that it includes: `slurmd -G` gives its node the GPUs and shards that are read, and
//! slurmctld counts as many.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use slurm::NodeName;
use slurm::conf::gres_conf::{GresConf, Line, same_cores};
use slurm::conf::reader::Disk;

use super::{failed, try_trees};
use crate::testbed::{Builder, LIMIT, NodeOptions, Progress, Testbed};

/// GPUs of the node, whose files are `nvidia0` and so on.
const MOST_GPUS: usize = 6;

/// How the words of a line are written.
#[derive(Debug, Clone)]
struct Style {
    lower: bool,
    equals: &'static str,
    between: &'static str,
    tail: &'static str,
    nodes: Option<&'static str>,
    /// In the file that is included.
    elsewhere: bool,
}

fn style() -> impl Strategy<Value = Style> {
    let equals = prop_oneof![8 => Just("="), 1 => Just(" = "), 1 => Just("=\t")];
    let between = prop_oneof![
        8 => Just(" "),
        1 => Just("  \t"),
        1 => Just(" \\\n"),
        1 => Just(" \\ \n  "),
    ];
    let tail = prop_oneof![
        8 => Just("\n"),
        1 => Just("  \n"),
        1 => Just(" # why\n"),
        1 => Just("\n# a comment\n\n"),
    ];
    let nodes = prop_oneof![
        6 => Just(None),
        1 => Just(Some("n1")),
        1 => Just(Some("n[1-3]")),
        1 => Just(Some("n0,n1")),
    ];
    let bits = (any::<bool>(), any::<bool>());
    (equals, between, tail, nodes, bits).prop_map(
        |(equals, between, tail, nodes, (lower, elsewhere))| Style {
            lower,
            equals,
            between,
            tail,
            nodes,
            elsewhere,
        },
    )
}

#[derive(Debug, Clone)]
enum Shards {
    None,
    /// So many for each GPU, in one line without a file.
    Spread(u64, &'static str),
    /// In one line with all files.
    Together(u64),
    /// In a line for each of the first GPUs.
    Each(Vec<u64>),
}

#[derive(Debug, Clone)]
struct Tree {
    /// For each GPU the number of its line, in rising order.
    groups: Vec<usize>,
    /// Whether the files of a line are in brackets.
    brackets: bool,
    kinds: Option<Vec<&'static str>>,
    cores: Option<Vec<&'static str>>,
    shards: Shards,
    styles: Vec<Style>,
    /// Lines of another node, and such as are for no GPU.
    noise: Vec<&'static str>,
}

fn tree() -> impl Strategy<Value = Tree> {
    let kind = prop::sample::select(
        &[
            "h100",
            "rtx_pro_6000",
            "a100-sxm4-40gb",
            "T4",
            "1g.10gb",
            "nvidia_h100_80gb_hbm3",
        ][..],
    );
    let cores = prop::sample::select(&["0", "0-1", "0,1", "1,0"][..]);
    let shards = prop_oneof![
        2 => Just(Shards::None),
        2 => (1..9_u64, prop_oneof![4 => Just(""), 1 => Just("K"), 1 => Just("k")])
            .prop_map(|(count, suffix)| Shards::Spread(count, suffix)),
        2 => (1..9_u64).prop_map(Shards::Together),
        2 => prop::collection::vec(1..9_u64, 1..=MOST_GPUS).prop_map(Shards::Each),
    ];
    let noise = prop::sample::select(
        &[
            "NodeName=n2 Name=gpu File={dir}/nvidia9\n",
            "NodeName=n[2-4] Name=shard Count=4 File={dir}/nvidia9\n",
            "# Name=gpu File={dir}/nvidia9\n",
            "\n",
        ][..],
    );
    (1..=MOST_GPUS)
        .prop_flat_map(move |gpus| {
            (
                prop::collection::vec(0..3_usize, gpus),
                any::<bool>(),
                prop::option::of(prop::collection::vec(kind.clone(), MOST_GPUS)),
                prop::option::of(prop::collection::vec(cores.clone(), MOST_GPUS)),
                shards.clone(),
                prop::collection::vec(style(), 2 * MOST_GPUS + 1),
                prop::collection::vec(noise.clone(), 0..3),
            )
        })
        .prop_map(
            |(mut groups, brackets, kinds, cores, shards, styles, noise)| {
                groups.sort_unstable();
                Tree {
                    groups,
                    brackets,
                    kinds,
                    cores,
                    shards,
                    styles,
                    noise,
                }
            },
        )
}

/// The files of these GPUs in one value.
fn files(dir: &Path, gpus: &[usize], brackets: bool) -> String {
    let dir = dir.display();
    let names: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    match (brackets, gpus) {
        (true, [first, .., last]) => format!("{dir}/nvidia[{first}-{last}]"),
        (true, [one]) => format!("{dir}/nvidia{one}"),
        _ => names
            .iter()
            .map(|name| format!("{dir}/nvidia{name}"))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// The texts of gres.conf and of the file that it includes.
fn texts(tree: &Tree, dir: &Path) -> [String; 2] {
    let mut texts = [String::new(), String::new()];
    let mut styles = tree.styles.iter();
    let mut write = |words: &[(&str, String)]| {
        let Some(style) = styles.next() else { return };
        let nodes = style.nodes.map(|nodes| ("NodeName", nodes.to_owned()));
        let words = nodes.iter().chain(words);
        let words: Vec<String> = words
            .map(|(key, value)| {
                let key = match style.lower {
                    true => key.to_ascii_lowercase(),
                    false => (*key).to_owned(),
                };
                format!("{key}{}{value}", style.equals)
            })
            .collect();
        let [main, more] = &mut texts;
        let text = if style.elsewhere { more } else { main };
        let _ = write!(text, "{}{}", words.join(style.between), style.tail);
    };
    let gpus: Vec<usize> = (0..tree.groups.len()).collect();
    for (line, group) in gpus
        .chunk_by(|a, b| tree.groups[*a] == tree.groups[*b])
        .enumerate()
    {
        let mut words = vec![
            ("Name", "gpu".to_owned()),
            ("File", files(dir, group, tree.brackets)),
        ];
        words.extend(
            tree.kinds
                .iter()
                .map(|kinds| ("Type", kinds[line].to_owned())),
        );
        words.extend(
            tree.cores
                .iter()
                .map(|cores| ("Cores", cores[line].to_owned())),
        );
        write(&words);
    }
    let all = gpus.len() as u64;
    let shard = |count: String| vec![("Name", "shard".to_owned()), ("Count", count)];
    match &tree.shards {
        Shards::None => {}
        Shards::Spread(count, suffix) => write(&shard(format!("{}{suffix}", count * all))),
        Shards::Together(count) => {
            let mut words = shard((count * all).to_string());
            words.push(("File", files(dir, &gpus, tree.brackets)));
            write(&words);
        }
        Shards::Each(counts) => {
            for (gpu, count) in gpus.iter().zip(counts) {
                let mut words = shard(count.to_string());
                words.push(("File", files(dir, &[*gpu], false)));
                write(&words);
            }
        }
    }
    for noise in &tree.noise {
        texts[0].push_str(&noise.replace("{dir}", &dir.display().to_string()));
    }
    texts[0].push_str("include more.conf\n");
    texts
}

/// How many there are of each name and type.
type Counts = BTreeMap<String, u64>;

fn counts(lines: &[Line]) -> Counts {
    let mut counts = Counts::new();
    for line in lines {
        let kind = line.kind.iter().map(|kind| format!(":{kind}"));
        let name = format!("{}{}", line.name, kind.collect::<String>());
        *counts.entry(name).or_default() += line.count.unwrap_or(1);
    }
    counts
}

/// slurm.conf's `Gres=`.
fn gres(counts: &Counts) -> String {
    let counts = counts.iter().map(|(name, count)| format!("{name}:{count}"));
    counts.collect::<Vec<_>>().join(",")
}

/// A GPU, or the shards of one, as slurmd prints it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    name: String,
    file: String,
    kind: Option<String>,
    count: u64,
    cores: Option<String>,
}

fn shown(line: &str) -> Option<Shown> {
    let (_, words) = line.split_once("Gres Name=")?;
    let value = |key: &str| {
        let mut words = words.split_ascii_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.filter(|value| *value != "(null)").map(str::to_owned)
    };
    let name = words.split_ascii_whitespace().next()?.to_owned();
    let is_gpu = name == "gpu";
    Some(Shown {
        file: value("File")?,
        // Shards have their GPU's.
        kind: value("Type").filter(|_| is_gpu),
        cores: value("Cores").filter(|_| is_gpu),
        count: value("Count")?.parse().ok()?,
        name,
    })
}

/// Before 22.05 the GPUs of a line are shown in one line, as its `File` is written.
fn each_file(shown: Shown) -> Vec<Shown> {
    if shown.name != "gpu" {
        return vec![shown];
    }
    let one = |file| Shown {
        name: shown.name.clone(),
        file,
        kind: shown.kind.clone(),
        count: 1,
        cores: shown.cores.clone(),
    };
    shown.file.split(',').flat_map(numbered).map(one).collect()
}

/// The files of `nvidia[0-3]`, or a file's own name.
fn numbered(file: &str) -> Vec<String> {
    let several = file.strip_suffix(']').and_then(|it| {
        let (start, range) = it.rsplit_once('[')?;
        let (first, last) = range.split_once('-')?;
        let numbers = first.parse::<u64>().ok()?..=last.parse().ok()?;
        Some(numbers.map(|number| format!("{start}{number}")).collect())
    });
    several.unwrap_or_else(|| vec![file.to_owned()])
}

/// The slurm.conf that slurmd reads beside a generated gres.conf.
fn slurm_conf(tb: &Testbed, folder: &Path, gres: &str) -> String {
    let (dir, munge) = (folder.display(), tb.dir().join("munge/socket"));
    format!(
        "ClusterName=c\nSlurmctldHost=localhost\nGresTypes=gpu,shard\n\
         AuthInfo=socket={}\nSlurmdSpoolDir={dir}/spool\nNodeName=n1 CPUs=2 Gres={gres}\n\
         PartitionName=p Nodes=n1\n",
        munge.display(),
    )
}

/// What slurmd says of node n1, in the order of the files, and all that it wrote.
fn slurmds(tb: &Testbed, folder: &Path) -> Result<(Vec<Shown>, String), TestCaseError> {
    let conf = folder.join("slurm.conf").display().to_string();
    let said = tb.command("root", &["slurmd", "-G", "-N", "n1", "-f", &conf]);
    let said = said.output().map_err(failed)?;
    let text = said.stdout + &said.stderr;
    let lines = text.lines().filter_map(shown);
    let mut all: Vec<Shown> = lines.flat_map(each_file).collect();
    // slurmd gives every GPU shards, and most of them none.
    all.retain(|it| it.count > 0);
    all.sort();
    Ok((all, text))
}

fn ours(conf: &GresConf) -> Vec<Shown> {
    let lines = conf.lines.iter().map(|line| Shown {
        name: line.name.clone(),
        file: line.files.join(","),
        kind: line.kind.clone(),
        count: line.count.unwrap_or(1),
        cores: line.cores.clone(),
    });
    let mut lines: Vec<Shown> = lines.collect();
    lines.sort();
    lines
}

fn is_same(ours: &Shown, slurms: &Shown) -> bool {
    let place = |it: &Shown| (it.name.clone(), it.file.clone(), it.kind.clone());
    same_cores(ours.cores.as_deref(), slurms.cores.as_deref())
        && place(ours) == place(slurms)
        && ours.count == slurms.count
}

fn make_devices(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for gpu in 0..MOST_GPUS {
        // Slurm accepts no other file for a GPU.
        let made = Command::new("mknod")
            .arg(folder.join(format!("nvidia{gpu}")))
            .args(["c", "195", &gpu.to_string()])
            .status()?;
        if !made.success() {
            return Err("mknod failed".into());
        }
    }
    Ok(())
}

/// Writes a tree's files to a folder, for the devices of another, and reads them.
fn read(
    tree: &Tree,
    devices: &Path,
    folder: &Path,
    node: &NodeName,
) -> Result<GresConf, TestCaseError> {
    let [text, included] = texts(tree, devices);
    fs::write(folder.join("gres.conf"), &text)?;
    fs::write(folder.join("more.conf"), &included)?;
    let conf = GresConf::read(&Disk, &folder.join("gres.conf"), node).map_err(failed)?;
    prop_assert!(
        conf.problems.is_empty(),
        "{:?} by\n{text}== more.conf\n{included}",
        conf.problems
    );
    Ok(conf)
}

/// Tries this many trees with a testbed's slurmd.
///
/// # Errors
/// A tree that slurmd reads in another way, or what stands in the way.
pub fn holds(tb: &Testbed, trees: u32) -> Result<(), Box<dyn Error>> {
    let dir = tb.dir().join("devices");
    make_devices(&dir)?;
    if tb.release().at_least(23, 11) {
        // Else slurmd sets up its control group, which a question needs not.
        fs::write(dir.join("cgroup.conf"), "CgroupPlugin=disabled\n")?;
    }
    let has_shards = tb.release().at_least(22, 5);
    let node = "n1".parse()?;
    try_trees(trees, &tree(), |mut tree| {
        if !has_shards {
            tree.shards = Shards::None;
        }
        let conf = read(&tree, &dir, &dir, &node)?;
        let slurm_conf = slurm_conf(tb, &dir, &gres(&counts(&conf.lines)));
        fs::write(dir.join("slurm.conf"), slurm_conf)?;
        let (slurms, said) = slurmds(tb, &dir)?;
        let ours = ours(&conf);
        let pairs = || ours.iter().zip(&slurms);
        prop_assert!(
            ours.len() == slurms.len() && pairs().all(|(ours, slurms)| is_same(ours, slurms)),
            "read {ours:#?}\nSlurm has {slurms:#?}\n{said}\nby\n{}",
            super::texts(&dir, &["slurm.conf", "gres.conf", "more.conf"])
        );
        Ok(())
    })
}

/// A small node, as this machine is.
fn small(builder: Builder) -> Result<Testbed, Box<dyn Error>> {
    let node = NodeOptions {
        sockets: 1,
        cores_per_socket: 2,
        threads_per_core: 1,
        real_memory: 100,
        ..NodeOptions::default()
    };
    let builder = builder.node(node).slurm_conf_extra("GresTypes=gpu,shard");
    Ok(builder.start()?)
}

/// Why slurmctld refuses the node, if it does, when its slurmd registers while slurm.conf says
/// this.
fn refused(tb: &Testbed, conf: &str, counts: &Counts) -> Result<Option<String>, Box<dyn Error>> {
    let with_gres = |line: &str| match line.starts_with("NodeName=n1 ") {
        true => format!("{line} Gres={}\n", gres(counts)),
        false => format!("{line}\n"),
    };
    let text: String = conf.lines().map(with_gres).collect();
    fs::write(tb.dir().join("slurm.conf"), text)?;
    // `scontrol reconfigure` changes no count of what has files.
    tb.start_again()?;
    Ok(tb.wait_until("n1 to register", LIMIT, || {
        let node = tb.node_state("n1")?;
        let is_refused = ["INVAL", "DRAIN"].iter().any(|it| node.state.contains(it));
        Ok(match node.state.as_str() {
            "IDLE" => Progress::Done(None),
            _ if is_refused => Progress::Done(Some(format!("{}: {}", node.state, node.reason))),
            _ => Progress::Waiting(format!("{} ({})", node.state, node.reason)),
        })
    })?)
}

/// Tries this many trees with a Slurm that this starts: a node is accepted with the
/// counts that are read, and not with one more GPU of any type.
///
/// # Errors
/// A tree whose counts Slurm has otherwise, or what stands in the way.
pub fn counts_hold(builder: Builder, trees: u32) -> Result<(), Box<dyn Error>> {
    let tb = small(builder)?;
    let devices = tb.dir().join("devices");
    make_devices(&devices)?;
    let conf = fs::read_to_string(tb.dir().join("slurm.conf"))?;
    // Else whatever slurmd reports is accepted.
    let conf = conf.replace("SlurmdParameters=config_overrides\n", "");
    let has_shards = tb.release().at_least(22, 5);
    let node = "n1".parse()?;
    let strategy = (tree(), any::<prop::sample::Index>());
    try_trees(trees, &strategy, |(mut tree, more)| {
        if !has_shards {
            tree.shards = Shards::None;
        }
        // From 24.11 on a node is refused whose cores are not those of whole sockets.
        tree.cores = None;
        let read = counts(&read(&tree, &devices, tb.dir(), &node)?.lines);
        let files = || super::texts(tb.dir(), &["slurm.conf", "gres.conf", "more.conf"]);
        // slurmd itself ends where slurm.conf has more shards.
        let mut with_more = read.clone();
        let gpus = with_more.iter_mut().filter(|it| it.0.starts_with("gpu"));
        let mut counts: Vec<&mut u64> = gpus.map(|it| it.1).collect();
        let kinds = counts.len().max(1);
        if let Some(count) = counts.get_mut(more.index(kinds)) {
            **count += 1;
            let refused = refused(&tb, &conf, &with_more).map_err(failed)?;
            prop_assert!(
                refused.is_some(),
                "accepted with {with_more:?}, by\n{}",
                files()
            );
        }
        if let Some(why) = refused(&tb, &conf, &read).map_err(failed)? {
            return Err(failed(format!("{why}, with {read:?}, by\n{}", files())));
        }
        Ok(())
    })
}
