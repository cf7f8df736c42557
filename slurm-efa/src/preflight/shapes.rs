//! Names and shapes: what the service's own model says of the files.

use cluster::Spot;
use cluster::shape::Kind;

use super::look::{Fault, File, Look, Outcome, Source};

/// Whether both files are JSON.
pub(super) fn json(look: &Look<'_>) -> Outcome {
    let input = look.input;
    let parameters = input.provisioning.as_ref();
    let sources = [
        (File::Cluster, Some(&input.cluster)),
        (File::Provisioning, parameters),
    ];
    let unread = |(file, source): (File, Option<&Source>)| {
        let unread = source?.document.as_ref().err()?;
        Some(Fault {
            file,
            at: Spot::default(),
            sentence: unread.reason.clone(),
        })
    };
    Ok(sources.into_iter().filter_map(unread).collect())
}

fn of_kind(look: &Look<'_>, kind: Kind) -> Outcome {
    let files = [
        (File::Cluster, &look.cluster_violations),
        (File::Provisioning, &look.provisioning_violations),
    ];
    let all = files.into_iter().flat_map(|(file, violations)| {
        let violations = violations.iter().filter(move |it| it.kind == kind);
        violations.map(move |violation| Fault {
            file,
            at: Spot {
                pointer: violation.pointer.clone(),
                offset: violation.offset,
            },
            sentence: violation.sentence.clone(),
        })
    });
    Ok(all.collect())
}

pub(super) fn required(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::Required)
}

pub(super) fn types(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::Type)
}

pub(super) fn patterns(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::Pattern)
}

pub(super) fn choices(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::Choice)
}

pub(super) fn ranges(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::Range)
}

pub(super) fn unknown_keys(look: &Look<'_>) -> Outcome {
    of_kind(look, Kind::UnknownKey)
}
