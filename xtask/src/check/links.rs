//! Links of Markdown pages that lead to files of the repository are alive.

use std::path::{Component, Path, PathBuf};

use super::{Violation, text::TextFile};
use crate::repo;

/// All Markdown files.
pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let exists = |path: &Path| repo::root().join(path).exists();
    let pages = files.iter().filter(|file| file.is("md"));
    pages.flat_map(|page| broken(page, files, &exists)).collect()
}

fn broken(page: &TextFile, files: &[TextFile], exists: &dyn Fn(&Path) -> bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line).filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { PathBuf::from(&page.path) } else { beside(&page.path, file) };
            if !exists(&path) {
                found.push(Violation::new(page.at(number), format!("link to {target}: no such file")));
            } else if !anchor.is_empty() && !has_heading(files, &path, anchor) {
                found.push(Violation::new(page.at(number), format!("link to {target}: no such heading")));
            }
        }
    }
    found
}

/// The targets of `[text](target)` in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target.trim()))
}

/// A link's path, from the root of the repository.
fn beside(page: &str, link: &str) -> PathBuf {
    let mut path = Path::new(page).parent().map(Path::to_owned).unwrap_or_default();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn has_heading(files: &[TextFile], path: &Path, anchor: &str) -> bool {
    let Some(page) = files.iter().find(|file| Path::new(&file.path) == path && file.is("md")) else {
        // An anchor into a source file is a line number.
        return true;
    };
    page.text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line.trim_start_matches('#')) == anchor)
}

/// A heading as the anchor that forges make of it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_and_a_dead_anchor_are_found() {
        let files = [
            TextFile::planted(
                "docs/a.md",
                "# A\nsee [b](b.md), [b's](b.md#two-words), [x](../gone.md) and [y](b.md#no)\n",
            ),
            TextFile::planted("docs/b.md", "# B\n## Two words\n[here](#b) and [out](https://example.com)\n"),
        ];
        let exists = |path: &Path| files.iter().any(|file| Path::new(&file.path) == path);
        let found: Vec<_> = files.iter().flat_map(|page| broken(page, &files, &exists)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.contains("gone.md") && found[1].what.contains("b.md#no"));
    }

    #[test]
    fn code_blocks_are_not_read() {
        let page = TextFile::planted("a.md", "```\n[x](gone.md)\n```\n");
        assert_eq!(broken(&page, &[], &|_| false), []);
    }
}
