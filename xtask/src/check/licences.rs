//! Every dependency's licence is one that an Apache-2.0 program may ship.

use std::collections::BTreeMap;

use super::{
    Violation,
    metadata::{Metadata, Package},
    spdx,
};

/// Licences that ask for no more than a notice.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
];

/// Crates that are taken all the same: (name, licence, reason).
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "libfuzzer-sys",
    "(MIT OR Apache-2.0) AND NCSA",
    "LLVM's own licence for libFuzzer asks for a notice; it is in programs of tests/fuzz alone, which are not shipped",
)];

/// All dependencies.
pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    metadata.packages.iter().filter(|package| !metadata.is_ours(package)).filter_map(one).collect()
}

fn one(package: &Package) -> Option<Violation> {
    let place = format!("{} {}", package.name, package.version);
    let Some(licence) = &package.license else {
        return Some(Violation::new(place, "names no licence"));
    };
    if EXCEPTIONS.iter().any(|(name, excepted, _)| *name == package.name && excepted == licence) {
        return None;
    }
    match spdx::satisfied(licence, &|name| ALLOWED.contains(&name)) {
        Ok(true) => None,
        Ok(false) => Some(Violation::new(
            place,
            format!(
                "licence `{licence}` is not among those allowed: choose another crate, or add an exception with its reason"
            ),
        )),
        Err(error) => Some(Violation::new(place, format!("licence `{licence}` cannot be read: {error}"))),
    }
}

/// One line about crates that are there in several versions. It is news, not a fault: most come from others' manifests.
pub(super) fn duplicates(metadata: &Metadata) -> String {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let several: Vec<String> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} {}", versions.join(" and ")))
        .collect();
    format!("several versions ({}): {}", several.len(), several.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(licence: Option<&str>) -> Package {
        Package {
            id: "x".to_owned(),
            name: "x".to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn a_copyleft_or_missing_licence_is_found() {
        assert!(one(&package(Some("GPL-3.0-only"))).is_some());
        assert!(one(&package(None)).is_some());
        assert!(one(&package(Some("MIT OR"))).is_some());
        assert_eq!(one(&package(Some("GPL-3.0-only OR MIT"))), None);
    }
}
