//! The repository's text files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::repo;

/// One text file.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    /// A file made up for a test.
    #[cfg(test)]
    pub(crate) fn planted(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether the name ends in `.EXTENSION`.
    pub(crate) fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// `PATH:LINE`.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }

    /// The number of the first line of the file's own tests (`#[cfg(test)] mod`), or past the end. A file of tests is
    /// tests from its first line.
    pub(crate) fn tests_from(&self) -> usize {
        let whole = self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/benches/");
        if whole {
            return 1;
        }
        let mut lines = self.lines().peekable();
        while let Some((number, line)) = lines.next() {
            if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|(_, next)| next.trim().ends_with('{')) {
                return number;
            }
        }
        usize::MAX
    }
}

/// Every text file that git tracks or would track.
pub(crate) fn tracked() -> Result<Vec<TextFile>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(repo::root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listing = repo::text(&mut git)?;
    let mut files = Vec::new();
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        // A tracked file may have been removed from the work tree; a picture is no text.
        let full: PathBuf = repo::root().join(path);
        if let Ok(text) = fs::read_to_string(&full) {
            files.push(TextFile { path: path.to_owned(), text });
        }
    }
    Ok(files)
}
