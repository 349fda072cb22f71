//! What came of the tests, read from what their runner printed.

use std::collections::{BTreeMap, BTreeSet};

/// How a test says that it did nothing for want of something: `not run: needs X (TEST)`.
const NOT_RUN: &str = "not run: ";

/// Counts, and what was not run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Tests that ended well, those that were not run among them.
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// What was missing, and the tests that wanted it.
    pub(super) not_run: BTreeMap<String, BTreeSet<String>>,
}

impl Outcome {
    /// Reads the report that nextest writes.
    pub(super) fn of_junit(report: &str) -> Self {
        let mut outcome = Self::default();
        let head = report.lines().find(|line| line.contains("<testsuites")).unwrap_or_default();
        let count = |name: &str| attribute(head, name).and_then(|value| value.parse().ok()).unwrap_or(0usize);
        outcome.failed = count("failures") + count("errors");
        outcome.passed = count("tests").saturating_sub(outcome.failed);
        let mut test = String::new();
        for line in report.lines() {
            if let Some((_, case)) = line.split_once("<testcase ") {
                let name = attribute(case, "name").unwrap_or_default();
                test = format!("{}::{name}", attribute(case, "classname").unwrap_or_default());
            }
            outcome.read_not_run(line, &test);
        }
        outcome
    }

    /// Reads one line that `cargo test` printed.
    pub(super) fn read_libtest(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let before = counts.split_once(word).map(|(before, _)| before).unwrap_or_default();
                before
                    .trim_end()
                    .rsplit([' ', '.', ';'])
                    .next()
                    .and_then(|number| number.parse().ok())
                    .unwrap_or(0usize)
            };
            self.passed += count("passed");
            self.failed += count("failed");
        }
        self.read_not_run(line, "");
    }

    /// Adds another run's.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        for (needs, tests) in other.not_run {
            self.not_run.entry(needs).or_default().extend(tests);
        }
    }

    fn read_not_run(&mut self, line: &str, test: &str) {
        // In a report the line may follow a tag.
        let Some((before, said)) = line.split_once(NOT_RUN) else { return };
        if !(before.trim().is_empty() || before.ends_with('>')) {
            return;
        }
        let said = said.split('<').next().unwrap_or_default().trim();
        let (needs, named) = match said.strip_suffix(')').and_then(|said| said.rsplit_once(" (")) {
            Some((needs, named)) => (needs, named),
            None => (said, ""),
        };
        let test = if test.is_empty() { named } else { test };
        self.not_run.entry(needs.to_owned()).or_default().insert(test.to_owned());
    }
}

/// The value of `NAME="VALUE"` in a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.find(&format!(" {name}=\"")).map(|at| at + name.len() + 3);
    // The first attribute of a tag that was cut at its name has no blank before it.
    let start = start.or_else(|| tag.starts_with(&format!("{name}=\"")).then_some(name.len() + 2))?;
    tag[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_report_is_counted_and_its_excuses_collected() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0" uuid="x" timestamp="t" time="1.5">
    <testsuite name="r2o-engine" tests="4" disabled="0" errors="0" failures="1">
        <testcase name="parity::resnet18" classname="r2o-engine" timestamp="t" time="0.1">
            <system-out>running 1 test
not run: needs Python with torch (parity::resnet18)
test parity::resnet18 ... ok</system-out>
        </testcase>
        <testcase name="says_so" classname="r2o-engine::gpu" timestamp="t" time="0.1">
            <system-out>not run: needs a GPU</system-out>
        </testcase>
    </testsuite>
</testsuites>"#;
        let outcome = Outcome::of_junit(report);
        assert_eq!((outcome.passed, outcome.failed), (3, 1));
        assert_eq!(outcome.not_run["needs Python with torch"], tests(&["r2o-engine::parity::resnet18"]));
        assert_eq!(outcome.not_run["needs a GPU"], tests(&["r2o-engine::gpu::says_so"]));
    }

    #[test]
    fn lines_of_cargo_test_are_counted() {
        let mut outcome = Outcome::default();
        outcome.read_libtest("test result: ok. 11 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        outcome.read_libtest("test result: FAILED. 1 passed; 2 failed; 0 ignored");
        outcome.read_libtest("not run: needs root (disk::a_full_disk)");
        outcome.read_libtest("the advice `not run: x` inside a sentence");
        assert_eq!((outcome.passed, outcome.failed), (12, 2));
        assert_eq!(outcome.not_run, BTreeMap::from([("needs root".to_owned(), tests(&["disk::a_full_disk"]))]));
    }

    #[test]
    fn outcomes_add_up() {
        let mut one = Outcome { passed: 1, ..Outcome::default() };
        one.read_libtest("not run: needs x (a)");
        let mut two = Outcome { failed: 1, ..Outcome::default() };
        two.read_libtest("not run: needs x (b)");
        one.add(two);
        assert_eq!((one.passed, one.failed), (1, 1));
        assert_eq!(one.not_run["needs x"], tests(&["a", "b"]));
    }
}
