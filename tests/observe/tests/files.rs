//! Dashboards, alerts, runbooks and the guide name only what is declared, and agree with each other.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use r2o_observe::{alerts, alerts_file, dashboards, files, guide, is_declared, metrics_in, program, text};
use r2o_telemetry::metrics::{Values, table};
use r2o_test_kit::{not_run, repository};

const NEEDS: &str = "needs prometheus";

#[test]
fn dashboards_name_only_declared_metrics() -> Result<()> {
    let mut queries = 0;
    for query in dashboards()?.iter().flat_map(r2o_observe::Dashboard::queries) {
        let names = metrics_in(&query.expr);
        ensure!(!names.is_empty(), "{}: no metric in {}", query.place, query.expr);
        for name in names {
            ensure!(is_declared(&name), "{}: {name} is not declared", query.place);
        }
        queries += 1;
    }
    ensure!(queries > 50, "only {queries} queries were found");
    Ok(())
}

#[test]
fn every_metric_is_shown_somewhere() -> Result<()> {
    let queries = dashboards()?.iter().flat_map(r2o_observe::Dashboard::queries).collect::<Vec<_>>();
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| metrics_in(&query.expr)).collect();
    for declared in table::all() {
        let found = shown.iter().any(|name| name.starts_with(declared.name));
        ensure!(found, "{} is on no dashboard: who would miss it?", declared.name);
    }
    Ok(())
}

#[test]
fn dashboards_are_whole() -> Result<()> {
    let all = dashboards()?;
    let names: Vec<_> = all.iter().map(|dashboard| dashboard.name.as_str()).collect();
    ensure!(names == ["checkpoints-recovery", "coordinator", "data-path", "fleet", "training-health"], "{names:?}");
    for dashboard in &all {
        let json = &dashboard.json;
        ensure!(json["uid"] == format!("r2o-{}", dashboard.name), "{}: uid {}", dashboard.name, json["uid"]);
        ensure!(json["schemaVersion"].as_u64() >= Some(36), "{}: schemaVersion", dashboard.name);
        let variables = json["templating"]["list"].as_array().context("no variables")?;
        let variables: Vec<_> = variables.iter().map(|variable| text(&variable["name"])).collect();
        ensure!(variables == ["datasource", "job"], "{}: {variables:?}", dashboard.name);
        let mut ids = BTreeSet::new();
        for panel in dashboard.panels() {
            let place = format!("{} / {}", dashboard.name, text(&panel["title"]));
            ensure!(ids.insert(panel["id"].as_u64()), "{place}: its id is taken");
            ensure!(text(&panel["description"]).len() > 10, "{place}: no description");
            ensure!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{place}: no unit");
            ensure!(text(&panel["datasource"]["uid"]) == "${datasource}", "{place}: a data source of its own");
            let place_on_page = &panel["gridPos"];
            let right = place_on_page["x"].as_u64().zip(place_on_page["w"].as_u64()).map(|(x, w)| x + w);
            ensure!(right.is_some_and(|right| right <= 24), "{place}: {place_on_page}");
            for link in panel["links"].as_array().into_iter().flatten() {
                ensure!(repository().join(text(&link["url"])).is_file(), "{place}: no page {}", link["url"]);
            }
        }
    }
    Ok(())
}

#[test]
fn alerts_have_runbooks_and_tests() -> Result<()> {
    let tests = files("deploy/prometheus/tests", "yaml")?;
    let tests: String = tests.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
    let all = alerts()?;
    ensure!(all.len() >= 8, "{} alerts", all.len());
    for alert in all {
        for name in metrics_in(&alert.expr) {
            ensure!(is_declared(&name), "{}: {name} is not declared", alert.alert);
        }
        let page = alert.annotations.get("runbook_url").context("no runbook_url")?;
        let page =
            std::fs::read_to_string(repository().join(page)).with_context(|| format!("{} {page}", alert.alert))?;
        ensure!(page.starts_with(&format!("# {}\n", alert.alert)), "{}: its runbook is another's", alert.alert);
        let case = |wanted: &str| {
            let named = format!("alertname: {}\n", alert.alert);
            tests.split("- eval_time").any(|case| case.contains(&named) && case.contains(wanted))
        };
        ensure!(case("exp_alerts: []"), "{}: no unit test in which it does not fire", alert.alert);
        ensure!(case("exp_labels"), "{}: no unit test lets it fire", alert.alert);
    }
    Ok(())
}

#[test]
fn rules_are_sound_and_pass_their_unit_tests() -> Result<()> {
    let Some(promtool) = program("promtool") else {
        not_run(NEEDS);
        return Ok(());
    };
    let checked = Command::new(&promtool).args(["check", "rules"]).arg(alerts_file()).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let tested =
        Command::new(&promtool).args(["test", "rules"]).args(files("deploy/prometheus/tests", "yaml")?).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
    ensure!(tested.status.success(), "{said}");
    Ok(())
}

/// The guide's table, from the declarations.
fn metrics_table() -> String {
    let mut lines =
        vec!["| metric | kind | labels | what it says |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
    for declared in table::all() {
        let label = |label: &r2o_telemetry::metrics::Label| match label.values {
            Values::Of(values) if values.len() <= 9 => format!("`{}`: {}", label.name, values.join(", ")),
            Values::Of(_) | Values::Jobs | Values::Build => format!("`{}`", label.name),
        };
        let labels: Vec<_> = declared.labels.iter().map(label).collect();
        let (name, kind, help) = (declared.name, declared.kind, declared.help);
        lines.push(format!("| `{name}` | {kind} | {} | {help} |", labels.join("; ")));
    }
    lines.join("\n")
}

/// `R2O_BLESS=1` writes the table instead.
#[test]
fn the_guide_has_the_declared_metrics() -> Result<()> {
    const MARKS: [&str; 2] = ["<!-- metrics: begin -->\n", "\n<!-- metrics: end -->"];
    let page = std::fs::read_to_string(guide())?;
    let (before, rest) = page.split_once(MARKS[0]).context("no begin of the table")?;
    let (table, after) = rest.split_once(MARKS[1]).context("no end of the table")?;
    let fresh = metrics_table();
    if std::env::var_os("R2O_BLESS").is_some() {
        std::fs::write(guide(), format!("{before}{}{fresh}{}{after}", MARKS[0], MARKS[1]))?;
        return Ok(());
    }
    ensure!(
        table == fresh,
        "docs/guide/observability.md is old: R2O_BLESS=1 cargo test -p r2o-observe writes its table"
    );
    Ok(())
}
