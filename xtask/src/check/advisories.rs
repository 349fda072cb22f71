//! Known faults of dependencies, by `cargo deny` or `cargo audit` where one is installed and can reach its database.

use anyhow::Result;

use crate::repo;

/// Tools, and what they print when the fault is theirs and not a dependency's.
const TOOLS: [(&str, &[&str]); 2] = [("deny", &["check", "--hide-inclusion-graph", "advisories"]), ("audit", &[])];
const UNREACHABLE: [&str; 5] =
    ["failed to fetch", "couldn't fetch", "failed to acquire", "failed to clone", "failed to open advisory database"];

/// Prints the verdict; gives back whether it is good. Without a tool or its database the rule is not run, and says so.
pub(super) fn check() -> Result<bool> {
    for (tool, arguments) in TOOLS {
        if !repo::output(repo::cargo().args([tool, "--version"])).is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = repo::output(repo::cargo().arg(tool).args(arguments))?;
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        if output.status.success() {
            println!("advisories: ok (cargo {tool})");
            return Ok(true);
        }
        if !unreachable(&said) {
            println!("advisories: broken\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
            return Ok(false);
        }
    }
    println!(
        "advisories: not run: needs the advisory database (cargo-deny or cargo-audit, and a network that reaches it)"
    );
    Ok(true)
}

fn unreachable(said: &str) -> bool {
    UNREACHABLE.iter().any(|sign| said.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_database_is_told_from_a_finding() {
        assert!(unreachable("error: couldn't fetch advisory database: io error"));
        assert!(!unreachable("error[vulnerability]: use after free in foo"));
    }
}
