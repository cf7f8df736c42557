//! What a job asked for, what that means on this node, and how it is said: the
//! pure middle, without an effect of its own.
//!
//! [`request`] is what was asked, [`profile`] what it means, [`rules`] the
//! tables, [`plan`] what to do on this node, [`provenance`] which values are
//! whose, [`hugepage_request`] how many hugepages, [`explain`] how to say it.

#![forbid(unsafe_code)]

pub mod explain;
pub mod export;
pub mod hugepage_request;
pub mod plan;
pub mod profile;
pub mod provenance;
pub mod request;
pub mod rules;
