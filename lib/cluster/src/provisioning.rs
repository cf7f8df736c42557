//! `provisioning_parameters.json`: which groups are the controller's and the
//! login nodes', as AWS's base lifecycle scripts read it.

use crate::cursor::{Cursor, FoundText, Spot};
use crate::json::Document;
use crate::role::Role;
use crate::shape::{Shape, nullable, optional, required};

/// What the file may contain. Source: AWS's base lifecycle scripts
/// (lifecycle_script.py) and SageMaker's guide to the file.
pub static PROVISIONING: Shape = Shape::Structure {
    union: false,
    members: &[
        required("version", &TEXT),
        required("workload_manager", &TEXT),
        required("controller_group", &TEXT),
        nullable("login_group", &TEXT),
        required("worker_groups", &WORKERS),
        nullable("fsx_dns_name", &TEXT),
        nullable("fsx_mountname", &TEXT),
        nullable("fsx_openzfs_dns_name", &TEXT),
        nullable("slurm_configurations", &Shape::Any),
    ],
};

static WORKERS: Shape = Shape::List {
    length: (0, 100),
    of: &WORKER,
};

static WORKER: Shape = Shape::Structure {
    union: false,
    members: &[
        required("instance_group_name", &TEXT),
        optional("partition_name", &TEXT),
    ],
};

static TEXT: Shape = Shape::Text {
    length: (0, 1024),
    pattern: "",
    values: &[],
};

/// The file, as far as checks look at it. A value of a wrong type is absent.
#[derive(Debug, Clone, Default)]
pub struct Provisioning {
    /// `version`.
    pub version: Option<FoundText>,
    /// `workload_manager`.
    pub workload_manager: Option<FoundText>,
    /// `controller_group`.
    pub controller_group: Option<FoundText>,
    /// `login_group`, unless it is empty.
    pub login_group: Option<FoundText>,
    /// `worker_groups`.
    pub workers: Vec<WorkerGroup>,
    /// `fsx_dns_name`, unless it is empty.
    pub fsx_dns_name: Option<FoundText>,
    /// `fsx_mountname`, unless it is empty.
    pub fsx_mount_name: Option<FoundText>,
}

/// One of `worker_groups`.
#[derive(Debug, Clone)]
pub struct WorkerGroup {
    /// The whole entry.
    pub at: Spot,
    /// `instance_group_name`.
    pub name: Option<FoundText>,
    /// `partition_name`.
    pub partition: Option<FoundText>,
}

impl Provisioning {
    /// Takes from a document what checks look at.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let root = Cursor::root(&document.root);
        let filled = |key| root.text(key).filter(|text| !text.value.is_empty());
        let worker = |it: Cursor<'_>| WorkerGroup {
            at: it.spot(),
            name: it.text("instance_group_name"),
            partition: it.text("partition_name"),
        };
        Self {
            version: root.text("version"),
            workload_manager: root.text("workload_manager"),
            controller_group: root.text("controller_group"),
            login_group: filled("login_group"),
            workers: root.list("worker_groups").into_iter().map(worker).collect(),
            fsx_dns_name: filled("fsx_dns_name"),
            fsx_mount_name: filled("fsx_mountname"),
        }
    }

    /// The partition of a group of workers.
    #[must_use]
    pub fn partition_of(&self, group: &str) -> Option<&str> {
        let is = |name: &Option<FoundText>| name.as_ref().is_some_and(|it| it.value == group);
        let worker = self.workers.iter().find(|worker| is(&worker.name))?;
        worker.partition.as_ref().map(|it| it.value.as_str())
    }

    /// What the nodes of a group are for: as the lifecycle scripts do, a group
    /// that is neither the controller's nor that of login nodes is compute.
    #[must_use]
    pub fn role_of(&self, group: &str) -> Role {
        let is = |name: &Option<FoundText>| name.as_ref().is_some_and(|it| it.value == group);
        if is(&self.controller_group) {
            Role::Controller
        } else if is(&self.login_group) {
            Role::Login
        } else {
            Role::Compute
        }
    }
}
