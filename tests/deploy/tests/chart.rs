//! The chart lints, renders and validates over all its example values.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use r2o_test_deploy::{Helm, NEEDS, Release, chart, python, values_files};
use r2o_test_kit::not_run;

/// The versions whose schemas judge.
const KUBERNETES: [&str; 3] = ["1.25", "1.30", "1.37"];

/// Kinds that no Kubernetes has of its own, and that the validator can only warn about.
const CUSTOM: [&str; 5] = [
    "kind Certificate with api version cert-manager.io/v1",
    "kind Issuer with api version cert-manager.io/v1",
    "kind ServiceMonitor with api version monitoring.coreos.com/v1",
    "kind PodMonitor with api version monitoring.coreos.com/v1",
    "kind PrometheusRule with api version monitoring.coreos.com/v1",
];

#[test]
fn it_lints_strictly_with_all_values() -> Result<()> {
    for values in values_files()? {
        for helm in Helm::ALL {
            let (chart, values) = (chart().display().to_string(), values.display().to_string());
            let Some(output) = helm.run(&["lint", "--strict", &chart, "--values", &values])? else {
                not_run(NEEDS);
                return Ok(());
            };
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "Helm {helm:?}, {values}:\n{said}");
        }
    }
    Ok(())
}

#[test]
fn both_helms_render_the_same() -> Result<()> {
    for values in values_files()? {
        // What is drawn at random differs, so it is given here.
        let release = Release::on("1.30").values(&values).with(&Release::OPERATOR);
        let release = release.set("tls.mode=none").set("tls.clients=false").set("tokens.mode=none");
        let release = release.set("service.type=ClusterIP");
        let (Some(three), Some(four)) = (release.objects(Helm::Three)?, release.objects(Helm::Four)?) else {
            not_run(NEEDS);
            return Ok(());
        };
        let sorted = |objects: Vec<serde_json::Value>| {
            let mut texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
            texts.sort();
            texts
        };
        assert_eq!(sorted(three), sorted(four), "{}", values.display());
    }
    Ok(())
}

/// The validator only warns about kinds that it does not know, removed ones among them, and exits with 0: so every
/// warning counts unless it is about a custom kind.
fn complaints(manifest: &str, version: &str) -> Result<Option<Vec<String>>> {
    let Some(python) = python() else { return Ok(None) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("manifest.yaml");
    fs::write(&file, manifest)?;
    let mut command = Command::new(python);
    let output = command.args(["-m", "kubernetes_validate", "--strict", "--quiet", "-k", version]).arg(&file).output();
    let output = output.context("cannot run the validator")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let allowed = |line: &&str| line.starts_with("WARN ") && CUSTOM.iter().any(|kind| line.contains(kind));
    let mut lines: Vec<String> = said.lines().filter(|line| !allowed(line)).map(ToOwned::to_owned).collect();
    if !output.status.success() && lines.is_empty() {
        lines.push(format!("the validator ended with {}", output.status));
    }
    Ok(Some(lines))
}

#[test]
fn its_objects_are_valid_from_1_25_to_1_37() -> Result<()> {
    for values in values_files()? {
        for version in KUBERNETES {
            let release = Release::on(version).values(&values).with(&Release::OPERATOR);
            let Some(text) = release.text(Helm::Four)? else {
                not_run(NEEDS);
                return Ok(());
            };
            let Some(found) = complaints(&text, version)? else {
                not_run(NEEDS);
                return Ok(());
            };
            assert!(found.is_empty(), "{} at {version}:\n{}", values.display(), found.join("\n"));
        }
    }
    Ok(())
}

#[test]
fn the_validator_is_not_fooled() -> Result<()> {
    let budget = |api: &str, field: &str| {
        format!("apiVersion: {api}\nkind: PodDisruptionBudget\nmetadata: {{name: x}}\nspec: {{{field}: 1}}\n")
    };
    let Some(removed) = complaints(&budget("policy/v1beta1", "maxUnavailable"), "1.37")? else {
        not_run(NEEDS);
        return Ok(());
    };
    assert!(removed.len() == 1 && removed[0].starts_with("WARN"), "a removed version passes: {removed:?}");
    let misspelt = complaints(&budget("policy/v1", "maxUnavailabel"), "1.37")?.unwrap_or_default();
    assert!(!misspelt.is_empty(), "an unknown field passes");
    let fine = complaints(&budget("policy/v1", "maxUnavailable"), "1.37")?.unwrap_or_default();
    assert!(fine.is_empty(), "{fine:?}");
    Ok(())
}

#[test]
fn an_old_cluster_gets_the_old_budget() -> Result<()> {
    for (version, api) in [("1.20", "policy/v1beta1"), ("1.30", "policy/v1")] {
        let Some(objects) = Release::on(version).objects(Helm::Four)? else {
            not_run(NEEDS);
            return Ok(());
        };
        let budgets: Vec<_> = objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget").collect();
        assert_eq!(budgets.len(), 2);
        assert!(budgets.iter().all(|budget| budget["apiVersion"] == api), "{version}");
    }
    Ok(())
}
