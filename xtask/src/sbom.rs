//! The bill of materials of a program: the crates that are linked into it or run while it is built, and libtorch, as
//! CycloneDX 1.5 JSON. It says nothing of the time, so that the same lock file gives the same bill.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::check::metadata::{self, Metadata, Package};
use crate::setup;

/// The crate that links libtorch, of which cargo knows nothing.
const LINKS_LIBTORCH: &str = "torch-sys";

/// Whose bill.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The program's package: r2o-coordinator, r2octl or r2o-worker.
    package: String,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let metadata = metadata::load()?;
    println!("{}", serde_json::to_string_pretty(&bill(&metadata, &arguments.package)?)?);
    Ok(())
}

fn bill(metadata: &Metadata, name: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let Some(program) = metadata.packages.iter().find(|package| package.name == name && metadata.is_ours(package))
    else {
        bail!("the workspace has no package {name}");
    };
    let needs = needs(metadata);
    let mut seen = BTreeSet::new();
    let mut ahead = vec![program.id.as_str()];
    while let Some(id) = ahead.pop() {
        if seen.insert(id) {
            ahead.extend(needs.get(id).into_iter().flatten());
        }
    }
    let mut components = Vec::new();
    let mut graph = Vec::new();
    for id in &seen {
        let package = packages.get(id).with_context(|| format!("cargo does not describe {id}"))?;
        if *id != program.id {
            components.push(component(package, "library"));
        }
        let on = needs.get(id).into_iter().flatten().filter_map(|id| packages.get(id));
        let mut on: BTreeSet<String> = on.map(|package| url(package)).collect();
        if package.name == LINKS_LIBTORCH {
            let version = setup::LIBTORCH_VERSION;
            let url = format!("pkg:pypi/torch@{version}");
            components.push(entry("library", "torch", version, &url, Some("BSD-3-Clause")));
            graph.push(json!({"ref": url, "dependsOn": []}));
            on.insert(url);
        }
        graph.push(json!({"ref": url(package), "dependsOn": on}));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(program, "application")},
        "components": components,
        "dependencies": graph,
    }))
}

/// Who needs whom, other than for tests.
fn needs(metadata: &Metadata) -> BTreeMap<&str, Vec<&str>> {
    let shipped = |kinds: &[metadata::EdgeKind]| kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
    let nodes = metadata.resolve.nodes.iter();
    nodes
        .map(|node| {
            let edges = node.deps.iter().filter(|edge| shipped(&edge.dep_kinds));
            (node.id.as_str(), edges.map(|edge| edge.pkg.as_str()).collect())
        })
        .collect()
}

fn component(package: &Package, kind: &str) -> Value {
    entry(kind, &package.name, &package.version, &url(package), package.license.as_deref())
}

fn entry(kind: &str, name: &str, version: &str, url: &str, licence: Option<&str>) -> Value {
    let mut component = json!({"type": kind, "bom-ref": url, "name": name, "version": version, "purl": url});
    if let Some(licence) = licence {
        // The slash is an old way to write OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    component
}

/// The package URL.
fn url(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_computes_has_libtorch_in_its_bill() {
        let metadata: Metadata = serde_json::from_value(json!({
            "workspace_members": ["p"], "workspace_default_members": [],
            "packages": [
                {"id": "p", "name": "p", "version": "1.0.0", "license": "Apache-2.0", "dependencies": []},
                {"id": "t", "name": LINKS_LIBTORCH, "version": "2.0.0", "license": "MIT", "dependencies": []},
            ],
            "resolve": {"nodes": [{"id": "p", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]}, {"id": "t", "deps": []}]},
        }))
        .unwrap();
        let bill = bill(&metadata, "p").unwrap();
        let url = format!("pkg:pypi/torch@{}", setup::LIBTORCH_VERSION);
        let refs: Vec<&Value> = bill["components"].as_array().unwrap().iter().map(|c| &c["bom-ref"]).collect();
        assert_eq!(refs, [&json!("pkg:cargo/torch-sys@2.0.0"), &json!(url)]);
        let graph = bill["dependencies"].as_array().unwrap();
        assert!(graph.contains(&json!({"ref": "pkg:cargo/torch-sys@2.0.0", "dependsOn": [url]})), "{graph:?}");
    }

    #[test]
    fn what_only_tests_need_is_not_in_the_bill() {
        let metadata: Metadata = serde_json::from_value(json!({
            "workspace_members": ["p"], "workspace_default_members": [],
            "packages": [
                {"id": "p", "name": "p", "version": "1.0.0", "license": "Apache-2.0", "dependencies": []},
                {"id": "a", "name": "a", "version": "2.0.0", "license": "MIT/Apache-2.0", "dependencies": []},
                {"id": "b", "name": "b", "version": "3.0.0", "license": null, "dependencies": []},
                {"id": "t", "name": "t", "version": "4.0.0", "license": "MIT", "dependencies": []},
            ],
            "resolve": {"nodes": [
                {"id": "p", "deps": [
                    {"pkg": "a", "dep_kinds": [{"kind": null}]}, {"pkg": "t", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "build"}, {"kind": "dev"}]}]},
                {"id": "b", "deps": []}, {"id": "t", "deps": []},
            ]},
        }))
        .unwrap();
        let bill = bill(&metadata, "p").unwrap();
        let names: Vec<&str> =
            bill["components"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["dependencies"][2], json!({"ref": "pkg:cargo/p@1.0.0", "dependsOn": ["pkg:cargo/a@2.0.0"]}));
        assert!(super::bill(&metadata, "a").is_err(), "only programs of ours have a bill");
    }
}
