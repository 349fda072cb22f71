//! What of the Helm chart is written from other files: its README's table of values, and its copies of dashboards and
//! alerts, because Helm reads no file outside of the chart.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{check::Violation, repo};

/// From the root of the repository.
const CHART: &str = "deploy/helm/r2o";
const DASHBOARDS: &str = "deploy/grafana";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";

/// The README's part that is written here lies between these lines.
const BEGIN: &str = "<!-- values: written by `cargo xtask chart` -->";
const END: &str = "<!-- end of values -->";

/// Writes what is generated anew, and removes copies of what is gone.
pub(crate) fn write() -> Result<()> {
    let root = repo::root();
    let wanted = wanted(root)?;
    for path in there(root)?.into_keys().filter(|path| !wanted.contains_key(path)) {
        fs::remove_file(root.join(&path)).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (path, text) in wanted {
        let full = root.join(&path);
        fs::create_dir_all(full.parent().context("a file of the chart has a folder")?)?;
        fs::write(&full, text).with_context(|| format!("cannot write {}", full.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// What is generated is that of its sources.
pub(crate) fn check() -> Vec<Violation> {
    let root = repo::root();
    match (wanted(root), there(root)) {
        (Ok(wanted), Ok(there)) => compare(&wanted, &there),
        (Err(error), _) | (_, Err(error)) => vec![Violation::new(CHART, format!("cannot be generated: {error:#}"))],
    }
}

fn compare(wanted: &BTreeMap<PathBuf, String>, there: &BTreeMap<PathBuf, String>) -> Vec<Violation> {
    let stale = wanted.keys().chain(there.keys()).filter(|path| wanted.get(*path) != there.get(*path));
    let mut stale: Vec<_> = stale.collect();
    stale.sort();
    stale.dedup();
    let what = "is not that of its sources: type `cargo xtask chart`";
    stale.into_iter().map(|path| Violation::new(path.display().to_string(), what)).collect()
}

/// The generated files as they should be, by their paths from the root.
fn wanted(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let chart = Path::new(CHART);
    let mut files = BTreeMap::new();
    let readme = chart.join("README.md");
    let text = read(&root.join(&readme))?;
    let values = read(&root.join(chart).join("values.yaml"))?;
    files.insert(readme, with_table(&text, &table(&values)?)?);
    for (name, text) in folder(&root.join(DASHBOARDS), "json")? {
        files.insert(chart.join("files/dashboards").join(name), text);
    }
    let alerts = root.join(ALERTS);
    if alerts.is_file() {
        files.insert(chart.join("files/alerts.yaml"), read(&alerts)?);
    }
    Ok(files)
}

/// The generated files as they are.
fn there(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let chart = Path::new(CHART);
    let mut files = BTreeMap::from([(chart.join("README.md"), read(&root.join(chart).join("README.md"))?)]);
    for (inside, extension) in [("files", "yaml"), ("files/dashboards", "json")] {
        for (name, text) in folder(&root.join(chart).join(inside), extension)? {
            files.insert(chart.join(inside).join(name), text);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files of a folder with an extension; none when there is no such folder.
fn folder(path: &Path, extension: &str) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == extension) {
                let name = path.file_name().context("an entry has a name")?.to_string_lossy().into_owned();
                files.insert(name, read(&path)?);
            }
        }
    }
    Ok(files)
}

fn with_table(readme: &str, table: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).with_context(|| format!("the README lacks the line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the README lacks the line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// A Markdown table of the values: one row for each `key: value`, described by the comment right above it.
fn table(values: &str) -> Result<String> {
    let mut rows = "| value | default | meaning |\n| --- | --- | --- |\n".to_owned();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment = Vec::new();
    for (number, line) in values.lines().enumerate() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        if text.is_empty() {
            continue;
        }
        let place = || format!("values.yaml:{}", number + 1);
        let (key, value) = text.split_once(':').with_context(|| format!("{}: is no `key: value`", place()))?;
        let indent = line.len() - line.trim_start().len();
        above.retain(|(outer, _)| *outer < indent);
        let path: Vec<&str> = above.iter().map(|(_, key)| *key).chain([key]).collect();
        let path = path.join(".");
        match (value.trim(), said.as_str()) {
            ("", _) => above.push((indent, key)),
            (_, "") => bail!("{}: say above `{path}` in a comment what it means", place()),
            (value, said) => {
                let cell = |text: &str| text.replace('|', "\\|");
                rows.push_str(&format!("| `{path}` | `{}` | {} |\n", cell(value), cell(said)));
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_rows_with_their_comments() {
        let values = "# The file.\n\na:\n  # What b is,\n  # at length.\n  b: 1\n  c:\n    # D or | e.\n    d: {x: y}\n# F.\nf: []\n";
        let table = table(values).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            ["| `a.b` | `1` | What b is, at length. |", "| `a.c.d` | `{x: y}` | D or \\| e. |", "| `f` | `[]` | F. |"]
        );
    }

    #[test]
    fn a_value_without_a_comment_is_found() {
        let error = table("a:\n  b: 1\n").unwrap_err().to_string();
        assert!(error.contains("values.yaml:2") && error.contains("`a.b`"), "{error}");
    }

    #[test]
    fn stale_missing_and_orphaned_files_are_found() {
        let files = |names: &[(&str, &str)]| -> BTreeMap<PathBuf, String> {
            names.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect()
        };
        let found =
            compare(&files(&[("a", "1"), ("b", "2"), ("c", "3")]), &files(&[("a", "1"), ("b", "x"), ("d", "")]));
        let places: Vec<&str> = found.iter().map(|violation| violation.place.as_str()).collect();
        assert_eq!(places, ["b", "c", "d"]);
    }

    #[test]
    fn the_readme_keeps_what_is_around_the_table() {
        let readme = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        assert_eq!(with_table(&readme, "new\n").unwrap(), format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert!(with_table("nothing", "new").is_err());
    }
}
