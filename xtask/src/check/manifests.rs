//! Every crate takes the workspace's lints and its dependencies from one place.

use super::{Violation, text::TextFile};

/// All rules of manifests.
pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let manifests = files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests.flat_map(one).collect()
}

fn one(file: &TextFile) -> Vec<Violation> {
    let Ok(manifest) = file.text.parse::<toml::Table>() else {
        return vec![Violation::new(&file.path, "is no TOML")];
    };
    let mut found = Vec::new();
    let inherits = |value: Option<&toml::Value>| {
        value.and_then(|table| table.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    if !inherits(manifest.get("lints")) {
        found.push(Violation::new(&file.path, "add `[lints]` with `workspace = true`"));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let lines = manifest.get(section).and_then(toml::Value::as_table);
        for (name, line) in lines.into_iter().flatten() {
            if !inherits(Some(line)) {
                found.push(Violation::new(&file.path, format!("{name}: write `{name}.workspace = true`")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_its_own_mind_is_found() {
        let planted = "[package]\nname = \"x\"\n[dependencies]\nserde = \"1\"\nurl.workspace = true\n";
        let found = check(&[TextFile::planted("x/Cargo.toml", planted)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.contains("[lints]") && found[1].what.contains("serde"));
    }

    #[test]
    fn a_manifest_that_inherits_is_fine() {
        let planted = "[lints]\nworkspace = true\n[dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n";
        assert_eq!(check(&[TextFile::planted("x/Cargo.toml", planted)]), []);
    }
}
