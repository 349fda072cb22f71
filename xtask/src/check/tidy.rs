//! Rules of tidiness on text: lengths, module documents, words that must not be there.

use super::{Violation, text::TextFile};

/// No file is longer.
const LINES_MAX: usize = 500;

/// Kinds of files that people write and read.
const WRITTEN: &[&str] = &["rs", "md", "proto", "py", "cpp", "cc", "h", "hpp", "sh", "toml", "yaml"];

/// Files that are exempt from the length, and why.
const LONG: &[(&str, &str)] = &[("Cargo.lock", "written by cargo")];

/// Where a pause between two looks at something is right, and why.
const PAUSES: &[(&str, &str)] = &[
    ("deploy/gpu-suite/src/", "a program that polls files and child processes, which call nobody"),
    ("tests/fleet-bench/src/", "a simulation, in which steps last a given time"),
];

/// All rules of tidiness.
pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let rules = [length, module_doc, hosts, unfinished, waiting, workplace, whitespace];
    files.iter().flat_map(|file| rules.iter().flat_map(move |rule| rule(file))).collect()
}

/// A file can be read in one sitting.
fn length(file: &TextFile) -> Vec<Violation> {
    let written = WRITTEN.iter().any(|extension| file.is(extension));
    let exempt = LONG.iter().any(|(path, _)| *path == file.path);
    let lines = file.text.lines().count();
    if written && !exempt && lines > LINES_MAX {
        return vec![Violation::new(
            &file.path,
            format!("has {lines} lines, more than {LINES_MAX}: split it by subject"),
        )];
    }
    Vec::new()
}

/// A module says what it is for.
fn module_doc(file: &TextFile) -> Vec<Violation> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if file.is("rs") && !(first.starts_with("//! ") && first.len() > "//! ".len()) {
        return vec![Violation::new(file.at(1), "begin the module with `//!` and what it is for")];
    }
    Vec::new()
}

/// No file names a package registry: people have mirrors, and the tools know where to ask.
fn hosts(file: &TextFile) -> Vec<Violation> {
    if file.path == "Cargo.lock" {
        return Vec::new();
    }
    // Put together here, so that this file names none either.
    let hosts = [
        ["crates", "io"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["npmjs", "org"],
        ["npmjs", "com"],
        ["debian", "org"],
    ];
    let hosts = hosts.map(|parts| parts.join("."));
    let download = ["download", "pytorch", "org"].join(".");
    words(file, 1, usize::MAX, hosts.iter().chain([&download]).map(String::as_str), "names a registry's host")
}

/// Nothing is left to be done.
fn unfinished(file: &TextFile) -> Vec<Violation> {
    if !(file.is("rs") || file.is("py") || file.is("cpp") || file.is("h") || file.is("proto")) || here(file) {
        return Vec::new();
    }
    let signs = ["todo!(", "unimplemented!(", "#[ignore", "dbg!(", "TODO", "FIXME", "XXX:"];
    let mut found = words(file, 1, usize::MAX, signs, "finish it, or leave it out");
    // The body of a child process is written as a test that only its parent runs.
    let child = |line: &str| line.contains("#[ignore = \"run by the tests of this module in a process of its own\"]");
    found.retain(|violation| !file.lines().any(|(number, line)| violation.place == file.at(number) && child(line)));
    found
}

/// Tests and cores wait for conditions, not for time; nothing blocks a thread by the clock.
fn waiting(file: &TextFile) -> Vec<Violation> {
    if !file.is("rs") || here(file) || PAUSES.iter().any(|(place, _)| file.path.starts_with(place)) {
        return Vec::new();
    }
    let mut found = words(file, 1, usize::MAX, ["thread::sleep"], "wait for a condition or a channel with a deadline");
    let tests = file.tests_from();
    found.extend(words(
        file,
        tests,
        usize::MAX,
        ["time::sleep"],
        "tests wait for conditions: r2o_test_kit::wait_until",
    ));
    found
}

/// The project speaks of itself: no machine's paths, nobody's desk.
fn workplace(file: &TextFile) -> Vec<Violation> {
    if here(file) {
        return Vec::new();
    }
    let signs = ["/work/", "/root/", "/home/user", "as requested", "this session's", "my machine"];
    words(file, 1, usize::MAX, signs, "speaks of a workplace: say it in the project's own terms")
}

/// Files end in one newline; lines end in no blanks.
fn whitespace(file: &TextFile) -> Vec<Violation> {
    let written = WRITTEN.iter().any(|extension| file.is(extension));
    if !written || file.text.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
        found.push(Violation::new(&file.path, "end the file in one newline"));
    }
    let ragged = file.lines().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    found.extend(ragged.map(|(number, _)| Violation::new(file.at(number), "the line ends in blanks")));
    found
}

/// This file, which spells out what it looks for.
fn here(file: &TextFile) -> bool {
    file.path == "xtask/src/check/tidy.rs"
}

fn words<'a>(
    file: &TextFile,
    from: usize,
    to: usize,
    signs: impl IntoIterator<Item = &'a str> + Clone,
    why: &str,
) -> Vec<Violation> {
    let lines = file.lines().filter(|(number, _)| (from..=to).contains(number));
    let mut found = Vec::new();
    for (number, line) in lines {
        let seen = signs.clone().into_iter().find(|sign| line.contains(sign));
        found.extend(seen.map(|sign| Violation::new(file.at(number), format!("`{sign}`: {why}"))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(path: &str, text: &str) -> TextFile {
        TextFile::planted(path, text)
    }

    #[test]
    fn a_long_file_is_found() {
        let long = "//! x\n".repeat(LINES_MAX + 1);
        assert_eq!(length(&planted("a/src/lib.rs", &long)).len(), 1);
        assert_eq!(length(&planted("a/data.tsv", &long)), []);
        assert_eq!(length(&planted("a/src/lib.rs", &"//! x\n".repeat(LINES_MAX))), []);
    }

    #[test]
    fn a_module_without_a_document_is_found() {
        assert_eq!(module_doc(&planted("a/src/lib.rs", "use std::fs;\n")).len(), 1);
        assert_eq!(module_doc(&planted("a/src/lib.rs", "//!\nuse std::fs;\n")).len(), 1);
        assert_eq!(module_doc(&planted("a/src/lib.rs", "//! Files.\n")), []);
    }

    #[test]
    fn a_registry_is_found() {
        let host = ["https://py", "pi.org/simple"].concat();
        assert_eq!(hosts(&planted("docs/a.md", &host)).len(), 1);
        assert_eq!(hosts(&planted("Cargo.lock", &host)), []);
    }

    #[test]
    fn unfinished_work_is_found() {
        for line in ["fn f() { todo!() }", "#[ignore]", "// TODO: later", "dbg!(x);"] {
            assert_eq!(unfinished(&planted("a/src/lib.rs", line)).len(), 1, "{line}");
        }
        assert_eq!(unfinished(&planted("a/src/lib.rs", "// done\n")), []);
        let child = "#[ignore = \"run by the tests of this module in a process of its own\"]";
        assert_eq!(unfinished(&planted("a/tests/it/processes.rs", child)), []);
    }

    #[test]
    fn waiting_by_the_clock_is_found() {
        assert_eq!(waiting(&planted("a/src/lib.rs", "std::thread::sleep(x);\n")).len(), 1);
        assert_eq!(waiting(&planted("tests/e2e/tests/a.rs", "tokio::time::sleep(x).await;\n")).len(), 1);
        // A shell may pause between attempts.
        assert_eq!(waiting(&planted("a/src/lib.rs", "tokio::time::sleep(x).await;\n")), []);
        let inside = "fn f() {}\n#[cfg(test)]\nmod tests {\n    tokio::time::sleep(x).await;\n}\n";
        assert_eq!(waiting(&planted("a/src/lib.rs", inside)).len(), 1);
    }

    #[test]
    fn a_workplace_is_found() {
        assert_eq!(workplace(&planted("docs/a.md", "see /root/notes")).len(), 1);
        assert_eq!(workplace(&planted("docs/a.md", "see docs/notes")), []);
    }

    #[test]
    fn ragged_text_is_found() {
        assert_eq!(whitespace(&planted("a.md", "a \nb")).len(), 2);
        assert_eq!(whitespace(&planted("a.md", "a\nb\n")), []);
    }
}
