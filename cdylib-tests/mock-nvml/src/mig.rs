//! MIG as NVIDIA's tables have it.
//!
//! Source of names, slices and placements: NVIDIA Multi-Instance GPU User
//! Guide, "Supported MIG Profiles" (A100-SXM4-40GB, H100-SXM5-80GB, H200-SXM5,
//! B200) and its output of `nvidia-smi mig -lgipp`. Every one of these GPUs has
//! 7 compute and 8 memory slices and the same geometry; only the sizes in the
//! names differ. The numeric ids are those that `nvidia-smi mig -lgip` shows
//! for A100 and H100; for H200 and B200 they are taken over, not verified.

use serde::{Deserialize, Serialize};

/// Compute slices of a GPU.
pub const SLICES: u32 = 7;

/// One GPU instance profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// `NVML_GPU_INSTANCE_PROFILE_*`.
    pub index: u32,
    /// The id that NVML's other calls take.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Memory slices, which are its place's size.
    pub size: u32,
    /// Where it may start.
    pub starts: &'static [u32],
    /// With the GPU's media engines: at most one on a GPU.
    pub media: bool,
}

const fn profile(
    index: u32,
    id: u32,
    slices: u32,
    size: u32,
    starts: &'static [u32],
    media: bool,
) -> Profile {
    Profile {
        index,
        id,
        slices,
        size,
        starts,
        media,
    }
}

/// The geometry that A100, H100, H200 and B200 share.
pub const PROFILES: &[Profile] = &[
    profile(0, 19, 1, 1, &[0, 1, 2, 3, 4, 5, 6], false),
    profile(1, 14, 2, 2, &[0, 2, 4], false),
    profile(2, 9, 3, 4, &[0, 4], false),
    profile(3, 5, 4, 4, &[0], false),
    profile(4, 0, 7, 8, &[0], false),
    profile(7, 20, 1, 1, &[0, 1, 2, 3, 4, 5, 6], true),
    profile(9, 15, 1, 2, &[0, 2, 4, 6], false),
];

/// The sizes in GB that the names of a GPU's profiles carry, for 1, 2, 4 and 8
/// memory slices.
pub type Sizes = [u32; 4];

/// Per model, with the guide's names as source.
pub const SIZES: &[(&str, Sizes)] = &[
    ("A100", [5, 10, 20, 40]),
    ("H100", [10, 20, 40, 80]),
    ("H200", [18, 35, 71, 141]),
    ("B200", [23, 45, 90, 180]),
];

impl Profile {
    /// The profile with this id.
    pub fn of(id: u32) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.id == id)
    }

    /// Its name on a GPU, e.g. `1g.10gb+me`; `None` for a GPU without MIG.
    pub fn name(&self, gpu: &str) -> Option<String> {
        let (_, sizes) = SIZES.iter().find(|(model, _)| gpu.contains(model))?;
        let size = sizes.get(self.size.ilog2() as usize)?;
        let media = if self.media { "+me" } else { "" };
        Some(format!("{}g.{size}gb{media}", self.slices))
    }
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id on the GPU.
    pub id: u32,
    /// Its profile's id.
    pub profile: u32,
    /// Its first memory slice.
    pub start: u32,
    /// What it is divided into.
    pub compute: Vec<Compute>,
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Its id in the GPU instance.
    pub id: u32,
    /// Its profile, `NVML_COMPUTE_INSTANCE_PROFILE_*`.
    pub profile: u32,
    /// Its first compute slice within the GPU instance.
    pub start: u32,
}

/// Compute slices of each `NVML_COMPUTE_INSTANCE_PROFILE_*`, in that order.
pub const COMPUTE_SLICES: [u32; 5] = [1, 2, 3, 4, 7];

impl Compute {
    /// Its compute slices.
    pub fn slices(&self) -> u32 {
        COMPUTE_SLICES
            .get(self.profile as usize)
            .copied()
            .unwrap_or(u32::MAX)
    }
}

/// Whether a profile fits beside what is there, from this memory slice on.
pub fn fits(there: &[Instance], new: &Profile, start: u32) -> bool {
    let profiles = || {
        there
            .iter()
            .filter_map(|instance| Some((instance, Profile::of(instance.profile)?)))
    };
    let free = profiles().all(|(instance, profile)| {
        start + new.size <= instance.start || instance.start + profile.size <= start
    });
    let slices: u32 = profiles().map(|(_, profile)| profile.slices).sum();
    let media = new.media && profiles().any(|(_, profile)| profile.media);
    new.starts.contains(&start) && free && slices + new.slices <= SLICES && !media
}

/// Every legal set of GPU instances, as (profile id, start) in order of start.
pub fn layouts() -> Vec<Vec<(u32, u32)>> {
    fn extend(there: &mut Vec<Instance>, from: u32, all: &mut Vec<Vec<(u32, u32)>>) {
        all.push(there.iter().map(|one| (one.profile, one.start)).collect());
        for start in from..8 {
            for profile in PROFILES {
                if !fits(there, profile, start) {
                    continue;
                }
                there.push(Instance {
                    id: 0,
                    profile: profile.id,
                    start,
                    compute: Vec::new(),
                });
                extend(there, start + profile.size, all);
                there.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut Vec::new(), 0, &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_own_examples_are_legal_and_its_limits_hold() {
        let all = layouts();
        let sorted = |mut it: Vec<u32>| {
            it.sort_unstable();
            it
        };
        let has = |wanted: &[u32]| {
            all.iter().any(|layout| {
                sorted(layout.iter().map(|it| it.0).collect()) == sorted(wanted.to_vec())
            })
        };
        assert!(has(&[19; 7]) && has(&[9, 9]) && has(&[5, 9]) && has(&[14, 14, 14, 19]));
        assert!(has(&[15; 4]) && has(&[20, 19, 19, 19, 19, 19, 19]) && has(&[0]));
        assert!(!has(&[19; 8]) && !has(&[5, 5]) && !has(&[20, 20]) && !has(&[0, 19]));
        println!("{} layouts", all.len());
    }

    #[test]
    fn names_are_the_guides() {
        let name = |id, gpu| Profile::of(id).unwrap().name(gpu).unwrap();
        assert_eq!(name(20, "NVIDIA A100-SXM4-40GB"), "1g.5gb+me");
        assert_eq!(name(15, "NVIDIA H100 80GB HBM3"), "1g.20gb");
        assert_eq!(name(9, "NVIDIA H200"), "3g.71gb");
        assert_eq!(name(0, "NVIDIA B200"), "7g.180gb");
        assert_eq!(Profile::of(19).unwrap().name("NVIDIA L40S"), None);
    }
}
