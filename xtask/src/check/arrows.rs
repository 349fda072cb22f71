//! The dependency arrows: which crate may name which.
//!
//! types ◄ {proto, storage, telemetry, report} ◄ {coordinator/core, worker/*} ◄ programs ◄ tests, xtask.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, metadata::Crate};

/// Where a crate stands; it may depend on crates of lower layers, and on those of its own that [`BESIDE`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Types,
    Common,
    Parts,
    Programs,
    Outside,
}

const LAYERS: &[(&str, Layer)] = &[
    ("r2o-types", Layer::Types),
    ("r2o-proto", Layer::Common),
    ("r2o-storage", Layer::Common),
    ("r2o-telemetry", Layer::Common),
    ("r2o-transport", Layer::Common),
    ("r2o-report", Layer::Common),
    ("r2o-coordinator-core", Layer::Parts),
    ("r2o-worker-core", Layer::Parts),
    ("r2o-slic", Layer::Parts),
    ("r2o-data", Layer::Parts),
    ("r2o-libtorch", Layer::Parts),
    ("r2o-aten", Layer::Parts),
    ("r2o-c10d", Layer::Parts),
    ("r2o-engine", Layer::Parts),
    ("r2o-coordinator", Layer::Programs),
    ("r2o-worker", Layer::Programs),
    ("r2octl", Layer::Programs),
    ("r2o-gpu-suite", Layer::Programs),
    ("r2o-gpu-suite", Layer::Outside),
    ("r2o-test-kit", Layer::Outside),
    ("r2o-test-stores", Layer::Outside),
    ("r2o-fleet-bench", Layer::Outside),
    ("r2o-e2e", Layer::Outside),
    ("r2o-chaos", Layer::Outside),
    ("r2o-observe", Layer::Outside),
    ("r2o-sim", Layer::Outside),
    ("r2o-fuzz", Layer::Outside),
    ("r2o-test-deploy", Layer::Outside),
    ("xtask", Layer::Outside),
];

/// Arrows inside one layer: (from, to).
const BESIDE: &[(&str, &str)] = &[
    ("r2o-report", "r2o-storage"),
    ("r2o-transport", "r2o-telemetry"),
    ("r2o-data", "r2o-slic"),
    ("r2o-aten", "r2o-libtorch"),
    ("r2o-c10d", "r2o-libtorch"),
    ("r2o-engine", "r2o-libtorch"),
    ("r2o-engine", "r2o-aten"),
    ("r2o-engine", "r2o-c10d"),
    ("r2o-fleet-bench", "r2o-test-kit"),
    ("r2o-e2e", "r2o-test-kit"),
    ("r2o-chaos", "r2o-test-kit"),
    ("r2o-observe", "r2o-test-kit"),
    ("r2o-chaos", "r2o-test-stores"),
    ("r2o-test-deploy", "r2o-test-kit"),
    ("xtask", "r2o-test-stores"),
    ("r2o-chaos", "r2o-e2e"),
];

/// Outside crates that only some of ours may name: (names, who may, why).
const DOORS: &[(&[&str], &[&str], &str)] = &[
    (&["tch", "torch-sys"], &["r2o-aten", "r2o-c10d", "r2o-engine"], "libtorch stays behind the engine"),
    (
        &["tonic", "prost", "tonic-prost", "tonic-health"],
        &[
            "r2o-proto",
            "r2o-telemetry",
            "r2o-transport",
            "r2o-coordinator",
            "r2o-worker",
            "r2octl",
            "r2o-test-kit",
            "r2o-fleet-bench",
            "r2o-e2e",
            "r2o-chaos",
            "r2o-observe",
            "r2o-fuzz",
        ],
        "only programs speak gRPC",
    ),
];

/// The pure cores, and all that they may name besides ours.
const PURE: &[&str] = &["r2o-coordinator-core", "r2o-worker-core", "r2o-types"];
const PURE_MAY_NAME: &[&str] =
    &["thiserror", "serde", "serde_json", "serde-saphyr", "serde_path_to_error", "schemars", "url", "xxhash-rust"];

/// All rules of arrows.
pub(super) fn check(crates: &[Crate]) -> Vec<Violation> {
    let rules = [layers, doors, pure, torch_free];
    rules.iter().flat_map(|rule| rule(crates)).collect()
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Arrows point to lower layers.
fn layers(crates: &[Crate]) -> Vec<Violation> {
    let mut found = Vec::new();
    for one in crates {
        let Some(from) = layer(&one.name) else {
            found.push(Violation::new(&one.name, "stands in no layer: give it one in xtask/src/check/arrows.rs"));
            continue;
        };
        for to in one.dependencies.iter().filter(|to| *to != &one.name) {
            let beside = BESIDE.contains(&(one.name.as_str(), to.as_str()));
            if layer(to).is_some_and(|to| to >= from) && !beside {
                found.push(Violation::new(&one.name, format!("may not depend on {to}: arrows point to lower layers")));
            }
        }
    }
    found
}

/// Some outside crates are named in few places.
fn doors(crates: &[Crate]) -> Vec<Violation> {
    let mut found = Vec::new();
    for one in crates {
        for (names, who, why) in DOORS {
            let named =
                names.iter().filter(|name| one.dependencies.contains(**name) && !who.contains(&one.name.as_str()));
            found.extend(named.map(|name| Violation::new(&one.name, format!("may not name {name}: {why}"))));
        }
    }
    found
}

/// Cores have no IO, clock or randomness to reach for.
fn pure(crates: &[Crate]) -> Vec<Violation> {
    let mut found = Vec::new();
    for one in crates.iter().filter(|one| PURE.contains(&one.name.as_str())) {
        let outside = one.dependencies.iter().filter(|name| layer(name).is_none());
        let strange = outside.filter(|name| !PURE_MAY_NAME.contains(&name.as_str()));
        found.extend(strange.map(|name| Violation::new(&one.name, format!("is pure and may not name {name}"))));
    }
    found
}

/// What a plain `cargo build` or `cargo test` builds never reaches libtorch.
fn torch_free(crates: &[Crate]) -> Vec<Violation> {
    let by_name: BTreeMap<&str, &Crate> = crates.iter().map(|one| (one.name.as_str(), one)).collect();
    let torch = ["tch", "torch-sys", "r2o-libtorch"];
    let mut found = Vec::new();
    for start in crates.iter().filter(|one| one.default) {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<&str> =
            start.dependencies.iter().chain(&start.test_dependencies).map(String::as_str).collect();
        while let Some(name) = ahead.pop() {
            if seen.insert(name) {
                ahead.extend(by_name.get(name).iter().flat_map(|one| one.dependencies.iter()).map(String::as_str));
            }
        }
        let reached = torch.iter().filter(|name| seen.contains(**name));
        found
            .extend(reached.map(|name| Violation::new(&start.name, format!("is a default member and reaches {name}"))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, default: bool, dependencies: &[&str]) -> Crate {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        Crate { name: name.to_owned(), default, dependencies, test_dependencies: BTreeSet::new() }
    }

    fn places(found: &[Violation]) -> Vec<&str> {
        found.iter().map(|violation| violation.place.as_str()).collect()
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let found =
            layers(&[one("r2o-types", true, &["serde", "r2o-storage"]), one("r2o-storage", true, &["r2o-types"])]);
        assert_eq!(places(&found), ["r2o-types"]);
        assert!(found[0].what.contains("r2o-storage"));
    }

    #[test]
    fn an_arrow_sideways_needs_leave() {
        let found = layers(&[one("r2o-engine", false, &["r2o-c10d"]), one("r2o-data", true, &["r2o-engine"])]);
        assert_eq!(places(&found), ["r2o-data"]);
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        assert_eq!(places(&layers(&[one("r2o-novel", true, &[])])), ["r2o-novel"]);
    }

    #[test]
    fn torch_and_grpc_have_doors() {
        let found = doors(&[
            one("r2o-engine", false, &["tch"]),
            one("r2o-data", true, &["tch"]),
            one("r2o-c10d", false, &["tonic"]),
            one("r2octl", true, &["tonic"]),
        ]);
        assert_eq!(places(&found), ["r2o-data", "r2o-c10d"]);
    }

    #[test]
    fn a_core_with_a_runtime_is_found() {
        let found = pure(&[one("r2o-coordinator-core", true, &["r2o-types", "thiserror", "tokio"])]);
        assert!(found.len() == 1 && found[0].what.contains("tokio"));
    }

    #[test]
    fn a_default_member_that_reaches_torch_is_found_through_others() {
        let mut tests_only = one("r2o-report", true, &[]);
        tests_only.test_dependencies.insert("r2o-engine".to_owned());
        let found = torch_free(&[
            one("r2octl", true, &["r2o-data"]),
            one("r2o-data", true, &["r2o-engine"]),
            one("r2o-engine", false, &["tch"]),
            tests_only,
            one("r2o-types", true, &["serde"]),
        ]);
        assert_eq!(places(&found), ["r2octl", "r2o-data", "r2o-report"]);
    }
}
