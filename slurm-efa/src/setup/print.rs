//! `slurm-efa setup --print`: what the files of a node need, for sites where another
//! tool owns them. Each item is printed whether or not it is there already, so that a
//! template made from it stays right.

use std::path::{Path, PathBuf};

use cluster::Role;
use slurm::conf::SlurmConf;

use super::desired::{self, Wishes};
use super::discover::Site;
use super::error::SetupError;
use super::files::Content;
use super::nhc;
use super::parts::{Item, Parts, Scope};
use super::paths::{HEALTHCHECK, NHC_CONF, NO_HEALTHCHECK, PAM_MODULE, SSHD};
use super::prologs::{links, own_config};
use super::slurm_conf::Directive;
use super::units;

/// What a node of this role needs, file by file. Reads, and changes nothing.
///
/// # Errors
/// A part is not configured, or the configuration is wrong.
pub fn lines(site: &Site, role: Role, only: Option<Parts>) -> Result<String, SetupError> {
    desired::is_configuration_right(site)?;
    let scope = Scope::setup(site, only)?;
    desired::config_reaches(site, role, scope)?;
    let mut text = String::new();
    if role == Role::Controller || site.edits_slurm(role) {
        text += &slurms(site, scope);
    }
    if role == Role::Login && scope.makes(Item::EfaCheck) {
        text += &link(site, HEALTHCHECK, &Content::Link(NO_HEALTHCHECK.into()));
    }
    if role == Role::Compute {
        for called in links(site).iter().filter(|it| scope.makes(it.item)) {
            text += &link(site, &called.link, &called.content(site));
        }
        if scope.makes(Item::EfaCheck) && nhc::is_in_use(site) {
            let line = nhc::line(&site.place_text(HEALTHCHECK));
            text += &file(&site.place(NHC_CONF), "", &[line]);
        }
        if scope.makes(Item::Logins) {
            text += &stack(site);
        }
        let config = own_config(site);
        let daemons = units::DAEMONS.iter().filter(|it| scope.makes(it.item));
        for (daemon, config) in daemons.filter_map(|it| Some((it, config?))) {
            text += &file(&daemon.drop_in(site), "", &[daemon.text(config)]);
        }
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// A file with its lines; nothing where there are none.
fn file(path: &Path, place: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = lines.iter().map(|it| it.trim_end()).collect();
    format!("# {}{place}\n{}\n\n", path.display(), lines.join("\n"))
}

fn link(site: &Site, path: &str, content: &Content) -> String {
    let path = site.place(path);
    match content {
        Content::Link(target) => {
            let target = target.display();
            file(&path, &format!(": a link to {target}"), &[String::new()])
        }
        Content::Script(text) | Content::Text(text) => {
            file(&path, ": an executable file", std::slice::from_ref(text))
        }
        Content::Nothing => String::new(),
    }
}

/// The two lines of sshd's stack, and where they belong.
fn stack(site: &Site) -> String {
    let module = desired::module(site).unwrap_or_else(|| site.place_text(PAM_MODULE));
    let call = desired::module_call(site, module);
    let sshd = site.place(SSHD);
    let line = |phase: &str, control: &str| vec![format!("{phase:<10} {control:<12} {call}")];
    file(
        &sshd,
        ": before its first account line",
        &line("account", "required"),
    ) + &file(
        &sshd,
        ": after its last session line",
        &line("session", "optional"),
    )
}

/// plugstack.conf, slurm.conf and cgroup.conf.
fn slurms(site: &Site, scope: Scope) -> String {
    let conf = site.slurm.slurm_conf.clone();
    let conf = conf.unwrap_or_else(|| PathBuf::from("/etc/slurm/slurm.conf"));
    let plugstack = site.plugstack();
    let plugstack = plugstack.unwrap_or_else(|| conf.with_file_name("plugstack.conf"));
    let now = &site.slurm.conf;
    let of = |path: &Path, wishes: Wishes| {
        let wishes = wishes.iter().filter(|(item, _)| scope.makes(*item));
        let wishes = wishes.flat_map(|(_, wishes)| wishes);
        let lines: Vec<String> = wishes.flat_map(|it| said(now, it)).collect();
        file(path, "", &lines)
    };
    let mut text = of(&plugstack, desired::plugins(site, |_| true));
    text += &of(&conf, desired::keys(site, scope.after()));
    if let Some(flags) = desired::hugetlb(site) {
        let cgroup = conf.with_file_name("cgroup.conf");
        text += &of(&cgroup, vec![(Item::Hugetlb, vec![flags])]);
    }
    text
}

/// The lines of a directive beside what slurm.conf says now. What the site has in its
/// place stays, and a comment says so.
fn said(now: &SlurmConf, directive: &Directive) -> Vec<String> {
    match directive {
        Directive::Plugin { path, arguments } => {
            vec![format!("optional {path} {arguments}").trim_end().to_owned()]
        }
        Directive::Value(key, value) => vec![format!("{key}={value}")],
        Directive::Flags(key, flags) => {
            let value = now.value(key).unwrap_or_default();
            let mut all: Vec<&str> = value.split(',').filter(|it| !it.is_empty()).collect();
            for flag in *flags {
                if !all.iter().any(|it| it.eq_ignore_ascii_case(flag)) {
                    all.push(flag);
                }
            }
            let wanted = all.join(",");
            let instead = !value.is_empty() && value != wanted;
            let mut lines = Vec::new();
            lines.extend(instead.then(|| format!("# Instead of {key}={value}:")));
            lines.push(format!("{key}={wanted}"));
            lines
        }
        Directive::HealthCheck { program, interval } => {
            let theirs = now.value("HealthCheckProgram").filter(|it| it != program);
            match theirs {
                Some(it) if nhc::is_nhc(it) => Vec::new(),
                Some(it) => vec![format!(
                    "# HealthCheckProgram={it} must run {program} as well"
                )],
                None => vec![
                    format!("HealthCheckProgram={program}"),
                    format!("HealthCheckInterval={interval}"),
                ],
            }
        }
        Directive::Program {
            key,
            value,
            several,
            ..
        } => {
            let theirs = now.values(key).into_iter().rfind(|it| it != value);
            match theirs {
                Some(it) if !several => {
                    vec![format!(
                        "# {key}={it} must run each program of {value} as well"
                    )]
                }
                _ => vec![format!("{key}={value}")],
            }
        }
        Directive::Verbatim(lines) => lines.clone(),
    }
}
