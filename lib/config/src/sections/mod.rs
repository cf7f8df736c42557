//! The sections of the configuration, one file for each: every key with its
//! type, its range and what holds without it.

pub mod gres;
pub mod health;
pub mod hugepages;
pub mod logout;
pub mod profile;
pub mod report;
pub mod top_level;
